"""Triggers of remote tasks that run on workers.

The grant `triggers` no longer exists; names that queue policies still hold under it are ignored.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

from airflow_remote_provider.compat import UtcDateTime

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

LONG = sa.Text().with_variant(mysql.LONGTEXT(), "mysql")


def upgrade() -> None:
    op.create_table(
        "remote_deferral",
        sa.Column("ti_id", sa.Uuid, nullable=False),
        sa.Column("deferred_by", sa.String(36), nullable=False),
        sa.Column("job_id", sa.String(36)),
        sa.Column("trigger_id", sa.Integer),
        sa.Column("classpath", sa.String(1000)),
        sa.Column("kwargs", LONG, nullable=False),
        sa.Column("next_method", sa.String(1000), nullable=False),
        sa.Column("next_kwargs", LONG, nullable=False),
        sa.Column("outcome", sa.String(16)),
        sa.Column("event", LONG),
        sa.Column("deferred_at", UtcDateTime, nullable=False),
        sa.PrimaryKeyConstraint("ti_id", name="pk_remote_deferral"),
    )
    op.create_index("ix_remote_deferral_job_id", "remote_deferral", ["job_id"])
    op.add_column("remote_worker", sa.Column("triggers", sa.Integer, nullable=False, server_default="0"))


def downgrade() -> None:
    with op.batch_alter_table("remote_worker") as batch:
        batch.drop_column("triggers")
    op.drop_table("remote_deferral")
