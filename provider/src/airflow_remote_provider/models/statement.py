"""Signed statements about trees, which central stores and passes on. It verifies none: it has no key."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, Index, Integer, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from airflow_remote_provider.compat import UtcDateTime
from airflow_remote_provider.models.base import Base


class StatementRow(Base):
    __tablename__ = "remote_statement"

    id: Mapped[int] = mapped_column(BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True)
    tree: Mapped[str] = mapped_column(String(64))
    """What it is about: a tree, or a list of keys."""
    kind: Mapped[str] = mapped_column(String(16))
    key_ids: Mapped[str] = mapped_column(Text)
    """Of the keys that have signed it, as it says itself; separated by spaces."""
    serial: Mapped[int] = mapped_column(BigInteger)
    envelope: Mapped[str] = mapped_column(Text)
    added_at: Mapped[datetime] = mapped_column(UtcDateTime)
    added_by: Mapped[str] = mapped_column(String(250))

    __table_args__ = (Index(None, "tree"), Index(None, "kind", "serial"))
