"""Enrolment tokens that replace a named worker."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("remote_enrolment", sa.Column("replaces", sa.String(36)))


def downgrade() -> None:
    with op.batch_alter_table("remote_enrolment") as batch:
        batch.drop_column("replaces")
