"""Signed statements about trees."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from airflow_remote_provider.compat import UtcDateTime

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "remote_statement",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), autoincrement=True, nullable=False),
        sa.Column("tree", sa.String(64), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("key_ids", sa.Text, nullable=False),
        sa.Column("serial", sa.BigInteger, nullable=False),
        sa.Column("envelope", sa.Text, nullable=False),
        sa.Column("added_at", UtcDateTime, nullable=False),
        sa.Column("added_by", sa.String(250), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_remote_statement"),
    )
    op.create_index("ix_remote_statement_tree", "remote_statement", ["tree"])
    op.create_index("ix_remote_statement_kind_serial", "remote_statement", ["kind", "serial"])


def downgrade() -> None:
    op.drop_table("remote_statement")
