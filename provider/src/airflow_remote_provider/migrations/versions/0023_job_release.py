"""The version of the worker's software that a job was offered to."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("remote_job", sa.Column("release", sa.String(100), nullable=False, server_default=""))


def downgrade() -> None:
    with op.batch_alter_table("remote_job") as batch:
        batch.drop_column("release")
