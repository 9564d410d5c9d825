"""Audit, rules per queue; columns that distinguish a restart from a copy of a worker, and a lost job from one not listed yet."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

from airflow_remote_provider.compat import UtcDateTime

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def _exact(length: int) -> Any:
    return sa.String(length).with_variant(mysql.VARCHAR(length, charset="utf8mb4", collation="utf8mb4_bin"), "mysql")


def _seconds() -> Any:
    return sa.Float().with_variant(mysql.DOUBLE(asdecimal=False), "mysql")


def upgrade() -> None:
    op.create_table(
        "remote_audit",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("first_at", UtcDateTime, nullable=False),
        sa.Column("at", UtcDateTime, nullable=False),
        sa.Column("times", sa.Integer, nullable=False),
        sa.Column("worker_id", sa.String(36)),
        sa.Column("worker_name", _exact(100)),
        sa.Column("job_id", sa.String(36)),
        sa.Column("actor", sa.String(250), nullable=False),
        sa.Column("detail", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_remote_audit"),
    )
    op.create_index("ix_remote_audit_at", "remote_audit", ["at"])
    op.create_table(
        "remote_queue",
        sa.Column("name", _exact(256), nullable=False),
        sa.Column("lost_after_s", _seconds()),
        sa.Column("changed_at", UtcDateTime, nullable=False),
        sa.Column("changed_by", sa.String(250), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_remote_queue"),
    )
    with op.batch_alter_table("remote_worker") as batch:
        batch.add_column(sa.Column("previous_boot_id", sa.String(64)))
        batch.add_column(sa.Column("refused_boot_id", sa.String(64)))
        batch.add_column(sa.Column("clock_offset_s", _seconds()))
    with op.batch_alter_table("remote_job") as batch:
        batch.add_column(sa.Column("missing_since", UtcDateTime))


def downgrade() -> None:
    with op.batch_alter_table("remote_job") as batch:
        batch.drop_column("missing_since")
    with op.batch_alter_table("remote_worker") as batch:
        for column in ("clock_offset_s", "refused_boot_id", "previous_boot_id"):
            batch.drop_column(column)
    for table in ("remote_queue", "remote_audit"):
        op.drop_table(table)
