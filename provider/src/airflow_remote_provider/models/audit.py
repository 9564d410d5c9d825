"""The audit: security-relevant events and the actions of users. One row per cause; repeats increment its counter."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Index, Integer, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from airflow_remote_provider.compat import UtcDateTime
from airflow_remote_provider.models.base import Base, exact


class AuditEntry(Base):
    __tablename__ = "remote_audit"

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    """UUID derived from kind and cause, so that a repeat finds the same row."""
    kind: Mapped[str] = mapped_column(String(32))
    first_at: Mapped[datetime] = mapped_column(UtcDateTime)
    at: Mapped[datetime] = mapped_column(UtcDateTime)
    """Time of the last occurrence."""
    times: Mapped[int] = mapped_column(Integer)
    worker_id: Mapped[str | None] = mapped_column(String(36))
    worker_name: Mapped[str | None] = mapped_column(exact(100))
    job_id: Mapped[str | None] = mapped_column(String(36))
    actor: Mapped[str] = mapped_column(String(250))
    """A user, or `worker` or `central`."""
    detail: Mapped[str] = mapped_column(Text)
    """Description of the last occurrence, for users."""

    __table_args__ = (Index(None, "at"),)
