"""What jobs require of a worker besides its queue: labels, and the right to run their bundle."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from airflow_remote_provider.models.base import exact

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("remote_job", sa.Column("labels", exact(1000)))
    op.add_column("remote_job", sa.Column("bundle", exact(250)))
    op.add_column("remote_worker", sa.Column("bundles", sa.JSON))
    op.add_column("remote_enrolment", sa.Column("bundles", sa.JSON))


def downgrade() -> None:
    for table, names in {
        "remote_enrolment": ["bundles"],
        "remote_worker": ["bundles"],
        "remote_job": ["bundle", "labels"],
    }.items():
        with op.batch_alter_table(table) as batch:
            for name in names:
                batch.drop_column(name)
