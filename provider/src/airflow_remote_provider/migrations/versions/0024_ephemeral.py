"""Ephemeral workers, and workers with a limit of jobs."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from airflow_remote_provider.compat import UtcDateTime

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("remote_worker", sa.Column("ephemeral", sa.Boolean, nullable=False, server_default=sa.false()))
    op.add_column("remote_worker", sa.Column("jobs_limit", sa.Integer, nullable=True))
    op.add_column("remote_worker", sa.Column("jobs_since", UtcDateTime, nullable=True))


def downgrade() -> None:
    with op.batch_alter_table("remote_worker") as table:
        table.drop_column("jobs_since")
        table.drop_column("jobs_limit")
        table.drop_column("ephemeral")
