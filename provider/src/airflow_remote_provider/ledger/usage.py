"""What workers say that they and their jobs use."""

from __future__ import annotations

from collections.abc import Collection
from datetime import timedelta

from airflow_remote_protocol.codec import decode, encode
from airflow_remote_protocol.messages import Usage as Told
from sqlalchemy import select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from airflow_remote_provider.compat import database_clock, database_now
from airflow_remote_provider.models import Usage

FRESH = timedelta(minutes=5)
"""What is older says nothing of now; it is longer than any worker waits between two words, unless thousands are busy."""


def note(session: Session, worker_id: str, told: Told) -> None:
    """Keep what this worker says now, in place of what it said before. One statement, but for the first time."""
    values = {"at": database_clock(session), "told": encode(told).decode()}
    change = update(Usage).where(Usage.worker_id == worker_id).values(values)
    if session.execute(change).rowcount:  # type: ignore[attr-defined]
        return
    try:
        with session.begin_nested():
            session.add(Usage(worker_id=worker_id, at=database_now(session), told=values["told"]))
    except IntegrityError:
        session.execute(change)  # it has told us twice at once


def fresh(session: Session, worker_ids: Collection[str]) -> dict[str, Told]:
    """Return what these workers said last, by their ids; of those that were silent for a while nothing. Two statements."""
    since = database_now(session) - FRESH
    query = select(Usage.worker_id, Usage.told).where(Usage.worker_id.in_(worker_ids), Usage.at >= since)
    return {worker_id: decode(Told, told.encode()) for worker_id, told in session.execute(query)}
