"""History; and an index of jobs by their begin, to compute waiting times over the last hour without reading all jobs."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def _exact(length: int) -> Any:
    return sa.String(length).with_variant(mysql.VARCHAR(length, charset="utf8mb4", collation="utf8mb4_bin"), "mysql")


def upgrade() -> None:
    op.create_table(
        "remote_history",
        sa.Column("kind", sa.String(8), nullable=False),
        sa.Column("name", _exact(256), nullable=False),
        sa.Column("team", _exact(50), nullable=False),
        sa.Column("span_s", sa.Integer, nullable=False),
        sa.Column("first", sa.BigInteger, nullable=False),
        sa.Column("points", sa.Text().with_variant(mysql.LONGTEXT(), "mysql"), nullable=False),
        sa.PrimaryKeyConstraint("kind", "name", "team", "span_s", "first", name="pk_remote_history"),
    )
    op.create_index("ix_remote_history_span_s_first", "remote_history", ["span_s", "first"])
    op.create_index("ix_remote_job_accepted_at", "remote_job", ["accepted_at"])


def downgrade() -> None:
    op.drop_index("ix_remote_job_accepted_at", "remote_job")
    op.drop_table("remote_history")
