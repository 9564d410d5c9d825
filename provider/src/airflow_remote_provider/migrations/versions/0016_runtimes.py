"""Reports of workers about their runtimes and Dag files, and the count of jobs that failed before they began."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("remote_job", sa.Column("site_code", sa.String(32)))
    op.add_column("remote_worker", sa.Column("runtime", sa.JSON(none_as_null=True)))
    op.add_column("remote_worker", sa.Column("unfit", sa.Text))
    op.add_column("remote_worker", sa.Column("early_failures", sa.Integer, nullable=False, server_default="0"))


def downgrade() -> None:
    with op.batch_alter_table("remote_job") as batch:
        batch.drop_column("site_code")
    with op.batch_alter_table("remote_worker") as batch:
        for name in ("early_failures", "unfit", "runtime"):
            batch.drop_column(name)
