"""First tables: workers, presence, enrolment tokens, jobs, duties."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

from airflow_remote_provider.compat import UtcDateTime

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def _exact(length: int) -> Any:
    return sa.String(length).with_variant(mysql.VARCHAR(length, charset="utf8mb4", collation="utf8mb4_bin"), "mysql")


def upgrade() -> None:
    op.create_table(
        "remote_worker",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("name", _exact(100), nullable=False),
        sa.Column("credential_hash", sa.String(64), nullable=False),
        sa.Column("revoked_at", UtcDateTime),
        sa.Column("removed_at", UtcDateTime),
        sa.Column("alarm", sa.Text, nullable=False),
        sa.Column("queues", sa.JSON, nullable=False),
        sa.Column("team", _exact(50)),
        sa.Column("slots_limit", sa.Integer),
        sa.Column("intent", sa.String(16), nullable=False),
        sa.Column("intent_revision", sa.Integer, nullable=False),
        sa.Column("intent_reason", sa.Text, nullable=False),
        sa.Column("intent_by", sa.String(250), nullable=False),
        sa.Column("intent_at", UtcDateTime),
        sa.Column("instance_id", sa.String(64)),
        sa.Column("boot_id", sa.String(64)),
        sa.Column("session_id", sa.String(36)),
        sa.Column("session_at", UtcDateTime),
        sa.Column("slots", sa.Integer, nullable=False),
        sa.Column("facts", sa.JSON, nullable=False),
        sa.Column("created_at", UtcDateTime, nullable=False),
        sa.Column("changed_at", UtcDateTime, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_remote_worker"),
        sa.UniqueConstraint("name", name="uq_remote_worker_name"),
        sa.UniqueConstraint("credential_hash", name="uq_remote_worker_credential_hash"),
    )
    op.create_index("ix_remote_worker_changed_at", "remote_worker", ["changed_at"])
    op.create_table(
        "remote_presence",
        sa.Column("worker_id", sa.String(36), nullable=False),
        sa.Column("last_seen_at", UtcDateTime),
        sa.PrimaryKeyConstraint("worker_id", name="pk_remote_presence"),
    )
    op.create_table(
        "remote_enrolment",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("token_hash", sa.String(64), nullable=False),
        sa.Column("name_pattern", _exact(100), nullable=False),
        sa.Column("queues", sa.JSON, nullable=False),
        sa.Column("team", _exact(50)),
        sa.Column("uses_left", sa.Integer, nullable=False),
        sa.Column("created_at", UtcDateTime, nullable=False),
        sa.Column("created_by", sa.String(250), nullable=False),
        sa.Column("expires_at", UtcDateTime, nullable=False),
        sa.Column("revoked_at", UtcDateTime),
        sa.PrimaryKeyConstraint("id", name="pk_remote_enrolment"),
        sa.UniqueConstraint("token_hash", name="uq_remote_enrolment_token_hash"),
    )
    op.create_table(
        "remote_job",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("epoch", sa.Integer, nullable=False),
        sa.Column("queue", _exact(256), nullable=False),
        sa.Column("team", _exact(50)),
        sa.Column("priority", sa.Integer, nullable=False),
        sa.Column("slots", sa.Integer, nullable=False),
        sa.Column("owner", _exact(100), nullable=False),
        sa.Column("ti_id", sa.Uuid),
        sa.Column("dag_id", sa.Text, nullable=False),
        sa.Column("run_id", sa.Text, nullable=False),
        sa.Column("task_id", sa.Text, nullable=False),
        sa.Column("map_index", sa.Integer, nullable=False),
        sa.Column("try_number", sa.Integer, nullable=False),
        sa.Column("workload", sa.Text().with_variant(mysql.LONGTEXT(), "mysql"), nullable=False),
        sa.Column("log_path", sa.Text, nullable=False),
        sa.Column("worker_id", sa.String(36)),
        sa.Column("worker_name", _exact(100)),
        sa.Column("offers", sa.Integer, nullable=False),
        sa.Column("not_before", UtcDateTime),
        sa.Column("deadline_at", UtcDateTime),
        sa.Column("lost_after_s", sa.Float().with_variant(mysql.DOUBLE(asdecimal=False), "mysql"), nullable=False),
        sa.Column("queued_at", UtcDateTime, nullable=False),
        sa.Column("offered_at", UtcDateTime),
        sa.Column("accepted_at", UtcDateTime),
        sa.Column("concluded_at", UtcDateTime),
        sa.Column("stop_reason", sa.String(16)),
        sa.Column("ended_at", UtcDateTime),
        sa.Column("settled_at", UtcDateTime),
        sa.Column("outcome", sa.String(16)),
        sa.Column("exit_code", sa.Integer),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("log_base", sa.BigInteger),
        sa.Column("log_epoch", sa.Integer),
        sa.Column("log_size", sa.BigInteger),
        sa.Column("log_sha256", sa.String(64)),
        sa.PrimaryKeyConstraint("id", name="pk_remote_job"),
    )
    op.create_index("ix_remote_job_state_queue_priority", "remote_job", ["state", "queue", "priority"])
    op.create_index("ix_remote_job_worker_id_state", "remote_job", ["worker_id", "state"])
    op.create_index("ix_remote_job_owner_state", "remote_job", ["owner", "state"])
    op.create_index("ix_remote_job_ti_id", "remote_job", ["ti_id"])
    op.create_index("ix_remote_job_ended_at", "remote_job", ["ended_at"])
    op.create_table(
        "remote_duty",
        sa.Column("name", sa.String(50), nullable=False),
        sa.Column("holder", sa.String(36), nullable=False),
        sa.Column("until", UtcDateTime, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_remote_duty"),
    )


def downgrade() -> None:
    for table in ("remote_duty", "remote_job", "remote_enrolment", "remote_presence", "remote_worker"):
        op.drop_table(table)
