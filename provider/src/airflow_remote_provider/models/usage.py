"""Usage: what a worker said last of its machine and its jobs, for people to see while it is fresh."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import String, Text
from sqlalchemy.dialects.mysql import LONGTEXT
from sqlalchemy.orm import Mapped, mapped_column

from airflow_remote_provider.compat import UtcDateTime
from airflow_remote_provider.models.base import Base


class Usage(Base):
    """Apart from :class:`Worker` and :class:`Presence`: it is written by itself, and locks nothing else."""

    __tablename__ = "remote_usage"

    worker_id: Mapped[str] = mapped_column(String(36), primary_key=True)
    at: Mapped[datetime] = mapped_column(UtcDateTime)
    told: Mapped[str] = mapped_column(Text().with_variant(LONGTEXT(), "mysql"))
    """JSON of the protocol's `Usage`."""
