"""Rotation of credentials, suspension of workers, labels, tokens bound to networks."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from airflow_remote_provider.compat import UtcDateTime

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

TIMES = ("credential_at", "credential_expires_at", "next_at", "next_expires_at", "past_at", "rotate_asked_at", "suspended_at")
HASHES = ("next_hash", "past_hash")


def upgrade() -> None:
    for name in TIMES:
        op.add_column("remote_worker", sa.Column(name, UtcDateTime))
    for name in HASHES:
        op.add_column("remote_worker", sa.Column(name, sa.String(64)))
        op.create_index(f"ix_remote_worker_{name}", "remote_worker", [name])
    op.add_column("remote_worker", sa.Column("labels", sa.JSON))
    op.add_column("remote_enrolment", sa.Column("labels", sa.JSON))
    op.add_column("remote_enrolment", sa.Column("networks", sa.JSON))


def downgrade() -> None:
    for name in HASHES:
        op.drop_index(f"ix_remote_worker_{name}", "remote_worker")
    with op.batch_alter_table("remote_enrolment") as table:
        table.drop_column("networks")
        table.drop_column("labels")
    with op.batch_alter_table("remote_worker") as table:
        for name in ("labels", *HASHES, *TIMES):
            table.drop_column(name)
