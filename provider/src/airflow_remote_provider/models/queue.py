"""Queues that people gave a rule of their own. A queue without a row has the defaults."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import String
from sqlalchemy.orm import Mapped, mapped_column

from airflow_remote_provider.compat import UtcDateTime
from airflow_remote_provider.models.base import Base, exact, seconds


class Queue(Base):
    __tablename__ = "remote_queue"

    name: Mapped[str] = mapped_column(exact(256), primary_key=True)
    lost_after_s: Mapped[float | None] = mapped_column(seconds())
    """NULL: as `[remote] lost_after_seconds` says."""
    changed_at: Mapped[datetime] = mapped_column(UtcDateTime)
    changed_by: Mapped[str] = mapped_column(String(250))
