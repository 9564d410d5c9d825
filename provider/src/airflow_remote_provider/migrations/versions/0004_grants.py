"""Policies of queues, and requests of jobs at the gateway."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

from airflow_remote_provider.compat import UtcDateTime

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def _exact(length: int) -> Any:
    return sa.String(length).with_variant(mysql.VARCHAR(length, charset="utf8mb4", collation="utf8mb4_bin"), "mysql")


def upgrade() -> None:
    op.add_column("remote_queue", sa.Column("mode", sa.String(16)))
    op.add_column("remote_queue", sa.Column("globs", sa.JSON))
    op.create_table(
        "remote_access",
        sa.Column("job_id", sa.String(36), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("name", _exact(250), nullable=False),
        sa.Column("answer", sa.String(16), nullable=False),
        sa.Column("at", UtcDateTime, nullable=False),
        sa.Column("worker_name", _exact(100)),
        sa.Column("queue", _exact(256), nullable=False),
        sa.Column("dag_id", sa.Text, nullable=False),
        sa.Column("run_id", sa.Text, nullable=False),
        sa.Column("task_id", sa.Text, nullable=False),
        sa.Column("map_index", sa.Integer, nullable=False),
        sa.Column("try_number", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("job_id", "kind", "name", "answer", name="pk_remote_access"),
    )
    op.create_index("ix_remote_access_at", "remote_access", ["at"])


def downgrade() -> None:
    op.drop_table("remote_access")
    with op.batch_alter_table("remote_queue") as table:
        table.drop_column("globs")
        table.drop_column("mode")
