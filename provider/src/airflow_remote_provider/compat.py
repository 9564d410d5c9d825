"""The only place that touches Airflow's private or version-dependent names (written against Airflow 3.3).

Imports are inside the functions: importing this module costs nothing and reads no configuration.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.utils.sqlalchemy import UtcDateTime

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine
    from sqlalchemy.orm import Session

__all__ = ["UtcDateTime"]


def engine() -> Engine:
    """Return Airflow's SQLAlchemy engine."""
    from airflow import settings

    if settings.engine is None:
        settings.configure_orm()
    return settings.engine  # type: ignore[no-any-return]


@cache
def _session_factory(bind: Any) -> Any:
    from sqlalchemy.orm import sessionmaker

    return sessionmaker(bind=bind, expire_on_commit=False, autoflush=False)


@contextmanager
def transaction(connection: Connection | None = None) -> Iterator[Session]:
    """One session, one transaction of our own on Airflow's engine, or on a *connection* of it; never the scheduler's session."""
    with _session_factory(engine())(**({} if connection is None else {"bind": connection})) as session, session.begin():
        yield session


def database_now(session: Session) -> datetime:
    """Return the database's clock (UTC). SQLite has none but this machine's."""
    from sqlalchemy import func, select

    name = session.get_bind().dialect.name
    if name == "postgresql":
        return session.scalar(select(func.clock_timestamp())).astimezone(timezone.utc)  # type: ignore[union-attr,no-any-return]
    if name == "mysql":
        return session.scalar(select(func.utc_timestamp(6))).replace(tzinfo=timezone.utc)  # type: ignore[union-attr,no-any-return]
    return datetime.now(timezone.utc)


def database_clock(session: Session, after: timedelta = timedelta()) -> Any:
    """Return the database's clock, *after* later, as what a statement can store or compare with: no round trip of its own."""
    from sqlalchemy import func, text

    name = session.get_bind().dialect.name
    if name == "postgresql":
        return func.clock_timestamp() + after if after else func.clock_timestamp()
    if name == "mysql":
        return func.timestampadd(text("MICROSECOND"), int(after.total_seconds() * 1e6), func.utc_timestamp(6))
    return datetime.now(timezone.utc) + after


def task_instance_model() -> Any:
    """Return Airflow's TaskInstance ORM class."""
    from airflow.models.taskinstance import TaskInstance

    return TaskInstance


def execution_token_generator() -> Any:
    """Return what mints the short tokens with which the gateway calls the Execution API."""
    from airflow.api_fastapi.auth.tokens import JWTGenerator, get_signing_args
    from airflow.configuration import conf

    return JWTGenerator(
        valid_for=60,
        audience=conf.get_mandatory_list_value("execution_api", "jwt_audience")[0],
        issuer=conf.get("api_auth", "jwt_issuer", fallback=None),
        **get_signing_args(make_secret_key_if_needed=False),
    )


def execution_api_app() -> Any:
    """Return a Task Execution API application of our own, ready for its lifespan to be entered."""
    from airflow.api_fastapi.common.dagbag import create_dag_bag
    from airflow.api_fastapi.execution_api.app import create_task_execution_api_app

    app = create_task_execution_api_app()
    app.state.dag_bag = create_dag_bag()
    return app


def log_file(relative_path: str) -> Path:
    """Return the path where Airflow's UI looks for this log (`[logging] base_log_folder`), made with Airflow's permissions."""
    from airflow.sdk.log import init_log_file

    return init_log_file(relative_path)  # type: ignore[no-any-return]


def base_log_folder() -> Path:
    from airflow.configuration import conf

    return Path(conf.get_mandatory_value("logging", "base_log_folder"))
