"""Requests to restart a worker's daemon."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from airflow_remote_provider.compat import UtcDateTime

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("remote_worker", sa.Column("restart_asked_at", UtcDateTime))
    op.add_column("remote_worker", sa.Column("restart_asked_by", sa.String(250)))


def downgrade() -> None:
    with op.batch_alter_table("remote_worker") as batch:
        batch.drop_column("restart_asked_by")
        batch.drop_column("restart_asked_at")
