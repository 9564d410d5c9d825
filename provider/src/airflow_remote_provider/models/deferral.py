"""Deferrals: what a remote task waits for, and what it continues with, as its worker encoded it; central never decodes it."""

from __future__ import annotations

import uuid
from datetime import datetime

from sqlalchemy import Index, Integer, String, Text, Uuid
from sqlalchemy.dialects.mysql import LONGTEXT
from sqlalchemy.orm import Mapped, mapped_column

from airflow_remote_provider.compat import UtcDateTime
from airflow_remote_provider.models.base import Base


class Deferral(Base):
    """The newest wait of one task instance. Kept until the task has ended: its next job reads it at its start."""

    __tablename__ = "remote_deferral"

    ti_id: Mapped[uuid.UUID] = mapped_column(Uuid, primary_key=True)
    deferred_by: Mapped[str] = mapped_column(String(36))
    """The job whose task deferred."""
    job_id: Mapped[str | None] = mapped_column(String(36))
    """The job of the trigger; NULL: not queued yet, or not run by a worker (central's triggerer, a user's input)."""
    trigger_id: Mapped[int | None] = mapped_column(Integer)
    """Airflow's row of the trigger."""
    classpath: Mapped[str | None] = mapped_column(String(1000))
    """NULL: no worker runs a trigger."""
    kwargs: Mapped[str] = mapped_column(Text().with_variant(LONGTEXT(), "mysql"))
    next_method: Mapped[str] = mapped_column(String(1000))
    next_kwargs: Mapped[str] = mapped_column(Text().with_variant(LONGTEXT(), "mysql"))
    outcome: Mapped[str | None] = mapped_column(String(16))
    """How the trigger ended: the protocol's `EventKind`; NULL: it has not ended."""
    event: Mapped[str | None] = mapped_column(Text().with_variant(LONGTEXT(), "mysql"))
    """JSON: the payload of the event if the trigger fired, the traceback if it failed."""
    deferred_at: Mapped[datetime] = mapped_column(UtcDateTime)

    __table_args__ = (Index(None, "job_id"),)
