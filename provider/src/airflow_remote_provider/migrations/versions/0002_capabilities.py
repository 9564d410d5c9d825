"""Capabilities of workers: callbacks and connection tests are only offered to workers that can run them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("remote_worker") as batch:
        batch.add_column(sa.Column("capabilities", sa.JSON))


def downgrade() -> None:
    with op.batch_alter_table("remote_worker") as batch:
        batch.drop_column("capabilities")
