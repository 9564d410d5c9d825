"""History: small time series of the fleet, of queues and of workers, many points to a row."""

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
    """The queue's name, the worker's id; empty for the fleet."""
    team: Mapped[str] = mapped_column(exact(50), primary_key=True)
    """Whose jobs and workers were counted; empty: those of no team."""
    span_s: Mapped[int] = mapped_column(Integer, primary_key=True)
    """What one point stands for, in seconds."""
    first: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    """The number of the row's first point, counted in spans since 1970, whether it is there or not."""
    points: Mapped[str] = mapped_column(Text().with_variant(LONGTEXT(), "mysql"))
    """JSON: a list for each point, of its number counted from the first, and its values."""

    __table_args__ = (Index(None, "span_s", "first"),)
