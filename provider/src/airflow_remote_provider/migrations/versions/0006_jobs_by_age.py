"""Index of jobs by age: lists show the newest first, page by page, whatever the size of the history."""

from __future__ import annotations

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("ix_remote_job_queued_at", "remote_job", ["queued_at"])


def downgrade() -> None:
    op.drop_index("ix_remote_job_queued_at", "remote_job")
