"""The audit: what happened that somebody may have to answer for. One row per cause, however often it comes again."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Index, Integer, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from airflow_remote_provider.compat import UtcDateTime
from airflow_remote_provider.models.base import Base, exact


class AuditEntry(Base):
    __tablename__ = "remote_audit"

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    """Made of its kind and cause: the same again finds the same row."""
    kind: Mapped[str] = mapped_column(String(32))
    first_at: Mapped[datetime] = mapped_column(UtcDateTime)
    at: Mapped[datetime] = mapped_column(UtcDateTime)
    """When it happened last."""
    times: Mapped[int] = mapped_column(Integer)
    worker_id: Mapped[str | None] = mapped_column(String(36))
    worker_name: Mapped[str | None] = mapped_column(exact(100))
    job_id: Mapped[str | None] = mapped_column(String(36))
    actor: Mapped[str] = mapped_column(String(250))
    """Who did it: a person, or what of ours (`worker`, `central`)."""
    detail: Mapped[str] = mapped_column(Text)
    """What happened last, for people."""

    __table_args__ = (Index(None, "at"),)
