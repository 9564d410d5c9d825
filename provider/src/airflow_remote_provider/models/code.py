"""Code that travels: blobs, trees (manifests of blobs), bundles, and the trees that were published of each."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, Boolean, Index, Integer, LargeBinary, String, Text
from sqlalchemy.dialects import mysql
from sqlalchemy.orm import Mapped, mapped_column
from sqlalchemy.types import TypeEngine

from airflow_remote_provider.compat import UtcDateTime
from airflow_remote_provider.models.base import Base, exact


def _binary() -> TypeEngine[bytes]:
    """Return a type for bytes beyond 64 KiB, which is where MySQL's BLOB ends."""
    return LargeBinary().with_variant(mysql.LONGBLOB(), "mysql")


class Blob(Base):
    """The content of a file, packed once and stored once. Each blob is named in the manifest of a tree that has a row."""

    __tablename__ = "remote_blob"

    sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    size: Mapped[int] = mapped_column(BigInteger)
    packed_size: Mapped[int] = mapped_column(BigInteger)
    encoding: Mapped[int] = mapped_column(Integer)
    """A :class:`airflow_remote_protocol.packs.Encoding`."""
    place: Mapped[str] = mapped_column(exact(200))
    """Where its bytes are, in the words of a :class:`..stores.blobs.BlobStore`. A place is never used again."""
    text_hash: Mapped[str | None] = mapped_column(String(32))
    """MD5 of its text as Airflow computes `dag_code.source_code_hash`; NULL: not a Python file, too long, or not UTF-8."""
    seen_at: Mapped[datetime] = mapped_column(UtcDateTime)
    """When a publisher last relied on it."""


class BlobPart(Base):
    """A part of a blob's packed bytes, where `[remote] blob_store = database`."""

    __tablename__ = "remote_blob_part"

    place: Mapped[str] = mapped_column(String(36), primary_key=True)
    number: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    data: Mapped[bytes] = mapped_column(_binary())
    """At most 1 MiB; all parts of a blob except the last have the same size."""


class TreeRow(Base):
    __tablename__ = "remote_tree"

    digest: Mapped[str] = mapped_column(String(64), primary_key=True)
    kind: Mapped[str] = mapped_column(String(16))
    files: Mapped[int] = mapped_column(Integer)
    manifest: Mapped[bytes] = mapped_column(_binary())
    """Packed by zlib."""
    bytes: Mapped[int] = mapped_column(BigInteger)
    state: Mapped[str] = mapped_column(String(16))
    """`incoming`: its blobs may be missing. `ready`: all of them are stored."""
    made_by: Mapped[str] = mapped_column(String(250))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    seen_at: Mapped[datetime] = mapped_column(UtcDateTime)
    """When a publisher last relied on it."""


class BundleRow(Base):
    """A Dag bundle that a publisher has published, or that a user has asked to publish."""

    __tablename__ = "remote_bundle"

    name: Mapped[str] = mapped_column(exact(250), primary_key=True)
    versioned: Mapped[bool] = mapped_column(Boolean)
    tree: Mapped[str | None] = mapped_column(String(64))
    """The newest tree; NULL: not published yet."""
    scanned_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """The database's clock when the last complete scan began: the newest tree has every change before it."""
    published_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """When the newest tree was published."""
    publisher: Mapped[str] = mapped_column(String(250), default="", server_default="")
    trouble: Mapped[str] = mapped_column(Text)
    """Why the last attempt to publish failed; empty: it did not fail."""
    wanted_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """When a user asked to publish now; NULL again after the next scan."""


class Edition(Base):
    """A published tree of a bundle, or a version of a bundle that a job needs and nobody has published yet.

    Also the tree of a runtime for one platform; its version is its serial.
    """

    __tablename__ = "remote_edition"

    id: Mapped[int] = mapped_column(BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True)
    kind: Mapped[str] = mapped_column(String(16))
    name: Mapped[str] = mapped_column(exact(250))
    version: Mapped[str] = mapped_column(exact(250), default="", server_default="")
    """Empty: the bundle has no versions."""
    platform: Mapped[str] = mapped_column(exact(64), default="", server_default="")
    tree: Mapped[str | None] = mapped_column(String(64))
    """NULL: not published yet."""
    published_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    scanned_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """The database's clock when the newest complete scan with this result began."""
    wanted_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """When a job first needed this version before it was published; NULL: it is published, or was never needed."""
    trouble: Mapped[str] = mapped_column(Text)
    """Why this version can't be published; empty: no attempt failed."""

    __table_args__ = (
        Index(None, "kind", "name", "version"),
        Index(None, "tree"),
    )
