"""Runtimes that central sends: their rollouts, which of them queues and jobs use, and what workers report of them."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

from airflow_remote_provider.compat import UtcDateTime

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None


def _exact(length: int) -> Any:
    return sa.String(length).with_variant(mysql.VARCHAR(length, charset="utf8mb4", collation="utf8mb4_bin"), "mysql")


def upgrade() -> None:
    op.create_table(
        "remote_runtime",
        sa.Column("name", _exact(63), nullable=False),
        sa.Column("serial", sa.Integer, nullable=False),
        sa.Column("previous", sa.Integer, nullable=False),
        sa.Column("built", sa.Integer, nullable=False),
        sa.Column("percent", sa.Integer, nullable=False),
        sa.Column("labels", _exact(1000)),
        sa.Column("halted", sa.Text, nullable=False),
        sa.Column("recipe", sa.JSON, nullable=False),
        sa.Column("built_with", sa.JSON, nullable=False),
        sa.Column("trouble", sa.Text, nullable=False),
        sa.Column("updated_at", UtcDateTime, nullable=False),
        sa.Column("updated_by", sa.String(250), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_remote_runtime"),
    )
    op.add_column("remote_queue", sa.Column("runtime", _exact(63)))
    op.add_column("remote_job", sa.Column("runtime", sa.String(64)))
    op.add_column("remote_worker", sa.Column("runtimes", sa.JSON(none_as_null=True)))


def downgrade() -> None:
    with op.batch_alter_table("remote_worker") as batch:
        batch.drop_column("runtimes")
    with op.batch_alter_table("remote_job") as batch:
        batch.drop_column("runtime")
    with op.batch_alter_table("remote_queue") as batch:
        batch.drop_column("runtime")
    op.drop_table("remote_runtime")
