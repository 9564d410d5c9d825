"""Queue policies: what every job of a queue may read and do besides what its task's definition grants."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import JSON, String
from sqlalchemy.orm import Mapped, mapped_column

from airflow_remote_provider.compat import UtcDateTime
from airflow_remote_provider.models.base import Base, exact


class QueuePolicy(Base):
    __tablename__ = "remote_queue_policy"

    queue: Mapped[str] = mapped_column(exact(256), primary_key=True)
    """`*`: all queues."""
    mode: Mapped[str | None] = mapped_column(String(16))
    """NULL: that of `*`."""
    globs: Mapped[dict[str, list[str]]] = mapped_column(JSON)
    """By :class:`..grants.Kind`."""
    changed_at: Mapped[datetime] = mapped_column(UtcDateTime)
    changed_by: Mapped[str] = mapped_column(String(250))
