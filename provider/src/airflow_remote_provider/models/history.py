"""History: small time series of the fleet, of queues and of workers, with many points per row (ADR 0018)."""

from __future__ import annotations

from sqlalchemy import BigInteger, Index, Integer, String, Text
from sqlalchemy.dialects.mysql import LONGTEXT
from sqlalchemy.orm import Mapped, mapped_column

from airflow_remote_provider.models.base import Base, exact


class History(Base):
    __tablename__ = "remote_history"

    kind: Mapped[str] = mapped_column(String(8), primary_key=True)
    """`fleet`, `queue` or `worker`."""
    name: Mapped[str] = mapped_column(exact(256), primary_key=True)
    """The queue's name or the worker's id; empty for the fleet."""
    team: Mapped[str] = mapped_column(exact(50), primary_key=True)
    """The team whose jobs and workers were counted; empty: those without a team."""
    span_s: Mapped[int] = mapped_column(Integer, primary_key=True)
    """The period that one point covers, in seconds."""
    first: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    """The number of the row's first point, counted in spans since 1970, even if that point is missing."""
    points: Mapped[str] = mapped_column(Text().with_variant(LONGTEXT(), "mysql"))
    """JSON: one list per point, of its number counted from *first* and its values."""

    __table_args__ = (Index(None, "span_s", "first"),)
