"""The end of leases, the owner of a log file, and names of workers that must differ by more than case."""

from __future__ import annotations

from datetime import datetime, timezone

import sqlalchemy as sa
from alembic import op

from airflow_remote_provider.compat import UtcDateTime
from airflow_remote_provider.models.base import exact

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

JOB = sa.table(
    "remote_job",
    sa.column("stop_reason", sa.String),
    sa.column("stop_decided_at", UtcDateTime),
    sa.column("ended_at", UtcDateTime),
)
ONE_OF_EACH_NAME = """
UPDATE remote_worker SET name_key = lower(name) WHERE id IN (
    SELECT kept.id FROM (SELECT min(id) AS id FROM remote_worker WHERE removed_at IS NULL GROUP BY lower(name)) AS kept
)
"""
"""Of workers whose names differ only by case, one gets the key; all stay valid. MySQL can read the table that it updates only
through a derived table."""


def upgrade() -> None:
    op.add_column("remote_job", sa.Column("concluded_as", sa.String(64)))
    op.add_column("remote_job", sa.Column("stop_decided_at", UtcDateTime))
    op.add_column("remote_job", sa.Column("log_key", sa.String(64)))
    op.add_column("remote_job", sa.Column("log_successor", sa.String(36)))
    op.add_column("remote_job", sa.Column("log_end", sa.BigInteger))
    op.create_index("ix_remote_job_log_key", "remote_job", ["log_key"])
    op.add_column("remote_worker", sa.Column("name_key", exact(100)))
    # The grace period of pending stops begins now.
    stopping = sa.update(JOB).where(JOB.c.stop_reason.is_not(None), JOB.c.ended_at.is_(None))
    op.execute(stopping.values(stop_decided_at=datetime.now(timezone.utc)))
    op.execute(ONE_OF_EACH_NAME)
    op.create_index("ix_remote_worker_name_key", "remote_worker", ["name_key"], unique=True)


def downgrade() -> None:
    op.drop_index("ix_remote_worker_name_key", "remote_worker")
    with op.batch_alter_table("remote_worker") as batch:
        batch.drop_column("name_key")
    op.drop_index("ix_remote_job_log_key", "remote_job")
    with op.batch_alter_table("remote_job") as batch:
        for name in ("log_end", "log_successor", "log_key", "stop_decided_at", "concluded_as"):
            batch.drop_column(name)
