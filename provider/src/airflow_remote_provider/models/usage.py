"""Usage: the last report of a worker about its machine and its jobs, shown to users while it is fresh."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import String, Text
from sqlalchemy.dialects.mysql import LONGTEXT
from sqlalchemy.orm import Mapped, mapped_column

from airflow_remote_provider.compat import UtcDateTime
from airflow_remote_provider.models.base import Base


class Usage(Base):
    """Separate from :class:`Worker` and :class:`WorkerContact`, so that writing it locks nothing else."""

    __tablename__ = "remote_usage"

    worker_id: Mapped[str] = mapped_column(String(36), primary_key=True)
    at: Mapped[datetime] = mapped_column(UtcDateTime)
    report: Mapped[str] = mapped_column("told", Text().with_variant(LONGTEXT(), "mysql"))
    """JSON of the protocol's `Usage`."""
