"""When a worker's row changed, as other API processes look for it (:class:`..api.auth.Registry`)."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from airflow_remote_provider.compat import database_now
from airflow_remote_provider.models import Worker


def stamp(session: Session) -> datetime:
    """Return the database's clock, but later than any change before: else a clock that was set back hides a revocation."""
    now = database_now(session)
    newest = session.scalar(select(func.max(Worker.changed_at)))
    return now if newest is None or newest < now else newest + timedelta(microseconds=1)
