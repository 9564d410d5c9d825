"""The database's clock, and the range of dates that it can store."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

from airflow.utils.sqlalchemy import UtcDateTime
from sqlalchemy import func, literal, select
from sqlalchemy.orm import Session

from airflow_remote_provider.compat.database import engine


def database_now(session: Session) -> datetime:
    """Return the database's clock (UTC). For SQLite this is the clock of this machine."""
    name = session.get_bind().dialect.name
    if name == "postgresql":
        return session.scalar(select(func.clock_timestamp())).astimezone(timezone.utc)  # type: ignore[union-attr,no-any-return]
    if name == "mysql":
        return session.scalar(select(func.utc_timestamp(6))).replace(tzinfo=timezone.utc)  # type: ignore[union-attr,no-any-return]
    return datetime.now(timezone.utc)


def read_clock_with(session: Session, fact: Any, *effects: Any) -> tuple[datetime, Any]:
    """Return the database's clock and the value of *fact*, with one statement that also selects *effects* (ignored on SQLite)."""
    if session.get_bind().dialect.name == "sqlite":
        return datetime.now(timezone.utc), session.scalar(select(fact))
    row = session.execute(select(database_clock(session).label("clock"), fact.label("fact"), *effects)).one()
    now = row.clock.replace(tzinfo=timezone.utc) if row.clock.tzinfo is None else row.clock.astimezone(timezone.utc)
    return now, row.fact


def database_clock(session: Session, after: timedelta = timedelta()) -> Any:
    """Return an expression for the database's clock plus *after*, for use in a statement, without a round trip of its own."""
    from sqlalchemy import func, text

    name = session.get_bind().dialect.name
    if name == "postgresql":
        return func.clock_timestamp() + after if after else func.clock_timestamp()
    if name == "mysql":
        return func.timestampadd(text("MICROSECOND"), int(after.total_seconds() * 1e6), func.utc_timestamp(6))
    return datetime.now(timezone.utc) + after


def latest_clock(session: Session) -> Any:
    """Return an expression for the later of the database's and this machine's clock, for use in a statement."""
    mine = datetime.now(timezone.utc)
    if session.get_bind().dialect.name == "sqlite":
        return mine
    return func.greatest(database_clock(session), literal(mine, UtcDateTime()))


def date_range() -> tuple[datetime, datetime] | None:
    """Return the first and the last date that Airflow's columns can store (TIMESTAMPs on MySQL); None: every date."""
    return MYSQL_TIMESTAMPS if engine().dialect.name == "mysql" else None


MYSQL_TIMESTAMPS = (datetime(1970, 1, 2, tzinfo=timezone.utc), datetime(2038, 1, 19, tzinfo=timezone.utc))
"""https://dev.mysql.com/doc/refman/8.4/en/datetime.html, less a day for time zones."""
