"""The worker's release follows central's version; a worker halts the rollout of each serial of a runtime once only."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("remote_release", sa.Column("follow", sa.Boolean, nullable=False, server_default=sa.true()))
    op.add_column("remote_release", sa.Column("built_with", sa.JSON(none_as_null=True)))
    op.add_column("remote_worker", sa.Column("failed_runtimes", sa.JSON(none_as_null=True)))


def downgrade() -> None:
    with op.batch_alter_table("remote_worker") as batch:
        batch.drop_column("failed_runtimes")
    with op.batch_alter_table("remote_release") as batch:
        batch.drop_column("built_with")
        batch.drop_column("follow")
