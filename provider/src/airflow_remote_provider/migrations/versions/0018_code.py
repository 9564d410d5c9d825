"""Blobs, trees, bundles and their editions; which code a job needs; what a worker holds and a queue allows."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

from airflow_remote_provider.compat import UtcDateTime

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def _exact(length: int) -> Any:
    return sa.String(length).with_variant(mysql.VARCHAR(length, charset="utf8mb4", collation="utf8mb4_bin"), "mysql")


def _binary() -> Any:
    return sa.LargeBinary().with_variant(mysql.LONGBLOB(), "mysql")


def upgrade() -> None:
    op.create_table(
        "remote_blob",
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("packed_size", sa.BigInteger, nullable=False),
        sa.Column("encoding", sa.Integer, nullable=False),
        sa.Column("place", _exact(200), nullable=False),
        sa.Column("text_hash", sa.String(32)),
        sa.Column("seen_at", UtcDateTime, nullable=False),
        sa.PrimaryKeyConstraint("sha256", name="pk_remote_blob"),
    )
    op.create_table(
        "remote_blob_part",
        sa.Column("place", sa.String(36), nullable=False),
        sa.Column("number", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("data", _binary(), nullable=False),
        sa.PrimaryKeyConstraint("place", "number", name="pk_remote_blob_part"),
    )
    op.create_table(
        "remote_tree",
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("files", sa.Integer, nullable=False),
        sa.Column("bytes", sa.BigInteger, nullable=False),
        sa.Column("manifest", _binary(), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("made_by", sa.String(250), nullable=False),
        sa.Column("created_at", UtcDateTime, nullable=False),
        sa.Column("seen_at", UtcDateTime, nullable=False),
        sa.PrimaryKeyConstraint("digest", name="pk_remote_tree"),
    )
    op.create_table(
        "remote_bundle",
        sa.Column("name", _exact(250), nullable=False),
        sa.Column("versioned", sa.Boolean, nullable=False),
        sa.Column("tree", sa.String(64)),
        sa.Column("scanned_at", UtcDateTime),
        sa.Column("published_at", UtcDateTime),
        sa.Column("publisher", sa.String(250), nullable=False, server_default=""),
        sa.Column("trouble", sa.Text, nullable=False),
        sa.Column("wanted_at", UtcDateTime),
        sa.PrimaryKeyConstraint("name", name="pk_remote_bundle"),
    )
    op.create_table(
        "remote_edition",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), nullable=False, autoincrement=True),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("name", _exact(250), nullable=False),
        sa.Column("version", _exact(250), nullable=False, server_default=""),
        sa.Column("platform", _exact(64), nullable=False, server_default=""),
        sa.Column("tree", sa.String(64)),
        sa.Column("published_at", UtcDateTime),
        sa.Column("scanned_at", UtcDateTime),
        sa.Column("wanted_at", UtcDateTime),
        sa.Column("trouble", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_remote_edition"),
    )
    op.create_index("ix_remote_edition_kind_name_version", "remote_edition", ["kind", "name", "version"])
    op.create_index("ix_remote_edition_tree", "remote_edition", ["tree"])
    op.add_column("remote_job", sa.Column("bundle_version", _exact(250)))
    op.add_column("remote_job", sa.Column("dag_version", sa.Uuid))
    op.add_column("remote_job", sa.Column("dag_file", sa.Text))
    op.add_column("remote_job", sa.Column("code_waits", sa.Boolean, nullable=False, server_default=sa.false()))
    op.add_column("remote_job", sa.Column("code_patience_at", UtcDateTime))
    op.add_column("remote_job", sa.Column("tree", sa.String(64)))
    op.add_column("remote_job", sa.Column("detail", _exact(100), nullable=False, server_default=""))
    op.add_column("remote_worker", sa.Column("inventory", sa.JSON(none_as_null=True)))
    op.add_column("remote_queue", sa.Column("bundles", sa.JSON(none_as_null=True)))


def downgrade() -> None:
    with op.batch_alter_table("remote_queue") as batch:
        batch.drop_column("bundles")
    with op.batch_alter_table("remote_worker") as batch:
        batch.drop_column("inventory")
    with op.batch_alter_table("remote_job") as batch:
        for name in ("detail", "tree", "code_patience_at", "code_waits", "dag_file", "dag_version", "bundle_version"):
            batch.drop_column(name)
    op.drop_index("ix_remote_edition_tree", "remote_edition")
    op.drop_index("ix_remote_edition_kind_name_version", "remote_edition")
    for table in ("remote_edition", "remote_bundle", "remote_tree", "remote_blob_part", "remote_blob"):
        op.drop_table(table)
