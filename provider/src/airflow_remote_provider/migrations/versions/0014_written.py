"""How much each job has written through the gateway."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("remote_job", sa.Column("written_bytes", sa.BigInteger(), nullable=False, server_default="0"))
    op.add_column("remote_job", sa.Column("writes", sa.Integer(), nullable=False, server_default="0"))


def downgrade() -> None:
    with op.batch_alter_table("remote_job") as batch:
        batch.drop_column("writes")
        batch.drop_column("written_bytes")
