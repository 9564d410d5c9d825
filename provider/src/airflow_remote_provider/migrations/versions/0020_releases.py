"""Releases of the worker that central sends: which one is rolled out, and what workers report of theirs."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

from airflow_remote_provider.compat import UtcDateTime

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None


def _exact(length: int) -> Any:
    return sa.String(length).with_variant(mysql.VARCHAR(length, charset="utf8mb4", collation="utf8mb4_bin"), "mysql")


def upgrade() -> None:
    op.create_table(
        "remote_release",
        sa.Column("name", _exact(63), nullable=False),
        sa.Column("serial", sa.Integer, nullable=False),
        sa.Column("previous", sa.Integer, nullable=False),
        sa.Column("built", sa.Integer, nullable=False),
        sa.Column("percent", sa.Integer, nullable=False),
        sa.Column("labels", _exact(1000)),
        sa.Column("halted", sa.Text, nullable=False),
        sa.Column("versions", sa.JSON, nullable=False),
        sa.Column("trouble", sa.Text, nullable=False),
        sa.Column("updated_at", UtcDateTime, nullable=False),
        sa.Column("updated_by", sa.String(250), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_remote_release"),
    )
    op.add_column("remote_worker", sa.Column("release", sa.JSON(none_as_null=True)))
    op.add_column("remote_worker", sa.Column("release_asked", sa.Integer))


def downgrade() -> None:
    with op.batch_alter_table("remote_worker") as batch:
        batch.drop_column("release_asked")
        batch.drop_column("release")
    op.drop_table("remote_release")
