"""Incidents, and the notices of them that wait to be delivered."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

from airflow_remote_provider.compat import UtcDateTime

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None


def _exact(length: int) -> Any:
    return sa.String(length).with_variant(mysql.VARCHAR(length, charset="utf8mb4", collation="utf8mb4_bin"), "mysql")


def upgrade() -> None:
    op.create_table(
        "remote_incident",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("open_key", sa.String(64)),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("subject", _exact(256), nullable=False),
        sa.Column("team", _exact(50)),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("begun_at", UtcDateTime, nullable=False),
        sa.Column("seen_at", UtcDateTime, nullable=False),
        sa.Column("recovered_at", UtcDateTime),
        sa.Column("acknowledged_at", UtcDateTime),
        sa.Column("acknowledged_by", sa.String(250)),
        sa.Column("trouble", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_remote_incident"),
        sa.UniqueConstraint("open_key", name="uq_remote_incident_open_key"),
    )
    op.create_index("ix_remote_incident_recovered_at", "remote_incident", ["recovered_at"])
    op.create_table(
        "remote_notice",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), autoincrement=True, nullable=False),
        sa.Column("incident_id", sa.String(36), nullable=False),
        sa.Column("event", sa.String(16), nullable=False),
        sa.Column("channel", sa.String(250), nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("next_at", UtcDateTime, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_remote_notice"),
    )


def downgrade() -> None:
    op.drop_table("remote_notice")
    op.drop_table("remote_incident")
