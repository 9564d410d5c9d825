"""Queues with settings. A queue without a row has the defaults."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import JSON, String
from sqlalchemy.orm import Mapped, mapped_column

from airflow_remote_provider.compat import UtcDateTime
from airflow_remote_provider.models.base import Base, exact, seconds


class Queue(Base):
    __tablename__ = "remote_queue"

    name: Mapped[str] = mapped_column(exact(256), primary_key=True)
    """`*`: all queues; only their policy can be set."""
    lost_after_s: Mapped[float | None] = mapped_column(seconds())
    """NULL: `[remote] lost_after_seconds` applies."""
    mode: Mapped[str | None] = mapped_column(String(16))
    """Mode of its policy; NULL: that of `*`."""
    globs: Mapped[dict[str, list[str]] | None] = mapped_column(JSON(none_as_null=True))
    """Names that its policy grants to all its jobs in addition to their tasks' definitions, by
    :class:`..definitions.grants.GrantKind`."""
    bundles: Mapped[list[str] | None] = mapped_column(JSON(none_as_null=True))
    """Globs of the Dag bundles whose jobs it can have; NULL: any."""
    runtime: Mapped[str | None] = mapped_column(exact(63))
    """Name of the runtime from central in which its jobs run; NULL: `default`."""
    changed_at: Mapped[datetime] = mapped_column(UtcDateTime)
    changed_by: Mapped[str] = mapped_column(String(250))
