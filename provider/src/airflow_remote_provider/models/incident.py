"""Incidents, and the notices of them that wait to be delivered."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, Index, Integer, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from airflow_remote_provider.compat import UtcDateTime
from airflow_remote_provider.models.base import Base, exact


class IncidentRow(Base):
    """A condition that needs an operator, from its begin to its recovery."""

    __tablename__ = "remote_incident"

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    open_key: Mapped[str | None] = mapped_column(String(64), unique=True)
    """What it is about, so that it is open only once; NULL: it has recovered."""
    kind: Mapped[str] = mapped_column(String(32))
    subject: Mapped[str] = mapped_column(exact(256))
    """The name of the worker, queue, runtime or release that it is about."""
    team: Mapped[str | None] = mapped_column(exact(50))
    text: Mapped[str] = mapped_column(Text)
    begun_at: Mapped[datetime] = mapped_column(UtcDateTime)
    seen_at: Mapped[datetime] = mapped_column(UtcDateTime)
    """When the condition was last found, to the minute."""
    recovered_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    acknowledged_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    acknowledged_by: Mapped[str | None] = mapped_column(String(250))
    trouble: Mapped[str] = mapped_column(Text)
    """Why a notice of it was not delivered; empty: all were, or wait."""

    __table_args__ = (Index(None, "recovered_at"),)


class NoticeRow(Base):
    """One event of an incident that one channel has not delivered yet. Deleted when it is delivered, or given up."""

    __tablename__ = "remote_notice"

    id: Mapped[int] = mapped_column(BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True)
    incident_id: Mapped[str] = mapped_column(String(36))
    event: Mapped[str] = mapped_column(String(16))
    """`begun` or `recovered`."""
    channel: Mapped[str] = mapped_column(String(250))
    attempts: Mapped[int] = mapped_column(Integer)
    next_at: Mapped[datetime] = mapped_column(UtcDateTime)
