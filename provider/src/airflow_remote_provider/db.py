"""Migrations with Airflow's DB managers: `airflow db migrate` creates and upgrades the tables of the Remote Executor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from airflow.utils.db_manager import BaseDBManager

from airflow_remote_provider.models import Base

PACKAGE = Path(__file__).parent


class RemoteDBManager(BaseDBManager):  # type: ignore[misc]
    """Airflow finds it through the provider's `db-managers`."""

    metadata = Base.metadata
    version_table_name = "alembic_version_remote"
    migration_dir = str(PACKAGE / "migrations")
    alembic_file = str(PACKAGE / "alembic.ini")
    supports_table_dropping = True
    revision_heads_map: dict[str, str] = {"0.1.0": "0025"}

    def downgrade(self, to_revision: str, from_revision: str | None = None, show_sql_only: bool = False) -> None:
        """Downgrade the tables to *to_revision* (`base`: remove all)."""
        from alembic import command

        if show_sql_only:
            to_revision = f"{from_revision or 'heads'}:{to_revision}"
        config: Any = self.get_alembic_config()
        command.downgrade(config, revision=to_revision, sql=show_sql_only)
