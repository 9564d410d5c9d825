"""Alembic's entry: runs our migrations on Airflow's engine, with a version table of our own."""

from __future__ import annotations

from alembic import context

from airflow_remote_provider import compat
from airflow_remote_provider.models import Base

VERSION_TABLE = "alembic_version_remote"


def _is_ours(_object: object, name: str | None, kind: str, *_: object) -> bool:
    return kind != "table" or name in Base.metadata.tables


def run() -> None:
    if context.is_offline_mode():
        context.configure(
            dialect_name=compat.engine().dialect.name,
            target_metadata=Base.metadata,
            literal_binds=True,
            version_table=VERSION_TABLE,
            render_as_batch=True,
        )
        with context.begin_transaction():
            context.run_migrations()
        return
    with compat.engine().connect() as connection:
        context.configure(
            connection=connection,
            target_metadata=Base.metadata,
            include_object=_is_ours,
            version_table=VERSION_TABLE,
            render_as_batch=True,
            transaction_per_migration=True,
        )
        with context.begin_transaction():
            context.run_migrations()


run()
