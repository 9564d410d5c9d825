"""Intents that end by themselves, and the revision of the intent that a worker has received."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from airflow_remote_provider.compat import UtcDateTime

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("remote_worker", sa.Column("intent_until", UtcDateTime))
    op.add_column("remote_worker", sa.Column("heard_revision", sa.Integer))


def downgrade() -> None:
    with op.batch_alter_table("remote_worker") as batch:
        batch.drop_column("heard_revision")
        batch.drop_column("intent_until")
