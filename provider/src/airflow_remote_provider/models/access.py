"""Accesses: requests of jobs at the gateway that were granted or denied. Names only, never values.

One row per job, name and answer for any number of requests, so a task that reads a variable in a loop makes one row.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Index, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from airflow_remote_provider.compat import UtcDateTime
from airflow_remote_provider.models.base import Base, exact


class Access(Base):
    __tablename__ = "remote_access"

    job_id: Mapped[str] = mapped_column(String(36), primary_key=True)
    kind: Mapped[str] = mapped_column(String(16), primary_key=True)
    """A :class:`..definitions.grants.GrantKind`, or `call` for a call that no grant can allow."""
    name: Mapped[str] = mapped_column(exact(250), primary_key=True)
    answer: Mapped[str] = mapped_column(String(16), primary_key=True)
    """`granted`, `denied`, or `audited`: granted because its queue only records what it would deny."""
    at: Mapped[datetime] = mapped_column(UtcDateTime)
    """Time of the first request."""

    worker_name: Mapped[str | None] = mapped_column(exact(100))
    queue: Mapped[str] = mapped_column(exact(256))
    dag_id: Mapped[str] = mapped_column(Text)
    run_id: Mapped[str] = mapped_column(Text)
    task_id: Mapped[str] = mapped_column(Text)
    map_index: Mapped[int]
    try_number: Mapped[int]

    __table_args__ = (Index(None, "at"),)
