"""Triggers of remote tasks run at the site; the grant `triggers` goes."""

from __future__ import annotations

import json

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

from airflow_remote_provider.compat import UtcDateTime

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

LONG = sa.Text().with_variant(mysql.LONGTEXT(), "mysql")
QUEUE = sa.table("remote_queue", sa.column("name", sa.String), sa.column("globs", sa.JSON))


def upgrade() -> None:
    op.create_table(
        "remote_deferral",
        sa.Column("ti_id", sa.Uuid, nullable=False),
        sa.Column("deferred_by", sa.String(36), nullable=False),
        sa.Column("job_id", sa.String(36)),
        sa.Column("trigger_id", sa.Integer),
        sa.Column("classpath", sa.String(1000)),
        sa.Column("kwargs", LONG, nullable=False),
        sa.Column("next_method", sa.String(1000), nullable=False),
        sa.Column("next_kwargs", LONG, nullable=False),
        sa.Column("outcome", sa.String(16)),
        sa.Column("event", LONG),
        sa.Column("deferred_at", UtcDateTime, nullable=False),
        sa.PrimaryKeyConstraint("ti_id", name="pk_remote_deferral"),
    )
    op.create_index("ix_remote_deferral_job_id", "remote_deferral", ["job_id"])
    op.add_column("remote_worker", sa.Column("triggers", sa.Integer, nullable=False, server_default="0"))
    _drop_globs("triggers")


def downgrade() -> None:
    with op.batch_alter_table("remote_worker") as batch:
        batch.drop_column("triggers")
    op.drop_table("remote_deferral")
    _drop_globs("code_on_central")


def _drop_globs(kind: str) -> None:
    """Forget what queue policies said of *kind*: the other version's words mean something else."""
    connection = op.get_bind()
    for name, globs in connection.execute(sa.select(QUEUE.c.name, QUEUE.c.globs)).all():
        told = json.loads(globs) if isinstance(globs, str) else globs
        if told and kind in told:
            kept = {key: value for key, value in told.items() if key != kind}
            connection.execute(sa.update(QUEUE).where(QUEUE.c.name == name).values(globs=kept))
