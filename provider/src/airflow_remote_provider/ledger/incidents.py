"""Incidents: their begin, recovery and acknowledgement, and the notices of them that wait for delivery.

What begins and recovers is decided by :mod:`.incident_rules`. The process on duty writes; users acknowledge.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from airflow_remote_provider.compat import database_now
from airflow_remote_provider.ledger.audit import record_action
from airflow_remote_provider.ledger.errors import NotFound
from airflow_remote_provider.ledger.incident_rules import Decision, IncidentKind
from airflow_remote_provider.ledger.presentable import presentable
from airflow_remote_provider.models import IncidentRow, NoticeRow

BEGUN, RECOVERED = "begun", "recovered"
MOST_EVENTS = 100
"""Events of one delivery. More wait for the next one."""
MOST_ATTEMPTS = 10
"""Deliveries of the same notice: within about an hour."""
FIRST_WAIT = timedelta(seconds=10)
LONGEST_WAIT = timedelta(minutes=20)


@dataclass(frozen=True)
class IncidentEvent:
    """The begin or the recovery of an incident, as channels deliver it. All values are text, numbers or times."""

    event: str
    id: str
    kind: str
    subject: str
    team: str | None
    text: str
    begun_at: datetime
    recovered_at: datetime | None


@dataclass(frozen=True)
class Batch:
    """What one channel is to deliver now."""

    channel: str
    notices: list[int]
    """Ids of their rows."""
    events: list[IncidentEvent]


def known(session: Session) -> dict[str, IncidentKind]:
    """Return the kinds of the open incidents, by key. A kind of a newer version is left out."""
    kinds = {kind.value: kind for kind in IncidentKind}
    query = select(IncidentRow.open_key, IncidentRow.kind).where(IncidentRow.open_key.is_not(None))
    return {row.open_key: kinds[row.kind] for row in session.execute(query) if row.kind in kinds}


def apply(session: Session, decision: Decision, *, channels: Collection[str], note_seen: bool) -> bool:
    """Store a decision, with a notice for each of *channels*. Return whether anything began or recovered."""
    if not (decision.begun or decision.recovered or (note_seen and decision.lasting)):
        return False
    now = database_now(session)
    if note_seen and decision.lasting:
        seen = update(IncidentRow).where(IncidentRow.open_key.in_(decision.lasting)).values(seen_at=now)
        session.execute(seen.execution_options(synchronize_session=False))
    for one in decision.begun:
        row = IncidentRow(
            id=str(uuid.uuid4()),
            open_key=one.key,
            kind=one.kind.value,
            subject=one.subject,
            team=one.team,
            text=one.text,
            begun_at=now,
            seen_at=now,
            trouble="",
        )
        session.add(row)
        _add_notices(session, row.id, BEGUN, channels, now)
    query = select(IncidentRow).where(IncidentRow.open_key.in_(decision.recovered)).with_for_update()
    for row in session.scalars(query) if decision.recovered else ():
        row.open_key, row.recovered_at = None, now
        _add_notices(session, row.id, RECOVERED, channels, now)
    session.flush()
    return bool(decision.begun or decision.recovered)


def _add_notices(session: Session, incident_id: str, event: str, channels: Collection[str], now: datetime) -> None:
    for channel in channels:
        session.add(NoticeRow(incident_id=incident_id, event=event, channel=channel, attempts=0, next_at=now))
        session.flush()  # notices are delivered in the order of their ids


def acknowledge(session: Session, incident_id: str, *, by: str) -> None:
    """Note that a user takes care of an incident. A repeat changes nothing.

    Raises:
        NotFound: there is no such incident.
    """
    row = session.get(IncidentRow, incident_id, with_for_update=True)
    if row is None:
        raise no_such_incident(incident_id)
    if row.acknowledged_at is None:
        row.acknowledged_at, row.acknowledged_by = database_now(session), by[:250]
        record_action(session, by, f"acknowledged the incident {row.kind} of {row.subject}")


def no_such_incident(incident_id: str) -> NotFound:
    name = presentable(incident_id, longest=36)
    return NotFound(f"there is no incident {name!r}; `airflow remote alerts list --all` shows the incidents that are kept")


def purge(session: Session, *, older_than: timedelta) -> None:
    """Delete incidents that recovered before the days that are kept, and their notices."""
    before = database_now(session) - older_than
    gone = select(IncidentRow.id).where(IncidentRow.recovered_at < before)
    session.execute(delete(NoticeRow).where(NoticeRow.incident_id.in_(gone)))
    session.execute(delete(IncidentRow).where(IncidentRow.recovered_at < before))


# Delivery


def next_batches(session: Session, channels: Sequence[str]) -> tuple[list[Batch], bool]:
    """Return what each channel is to deliver now, and whether any notice waits, also for later. Drops those of other channels.

    A channel delivers in order: while its first notice waits for its next attempt, the others wait, too.
    """
    waiting = set(session.scalars(select(NoticeRow.channel).distinct()))
    if gone := waiting - set(channels):
        session.execute(delete(NoticeRow).where(NoticeRow.channel.in_(gone)))
    now, batches = database_now(session), []
    for channel in [one for one in channels if one in waiting]:
        query = select(NoticeRow, IncidentRow).join(IncidentRow, IncidentRow.id == NoticeRow.incident_id)
        rows = session.execute(query.where(NoticeRow.channel == channel).order_by(NoticeRow.id).limit(MOST_EVENTS)).all()
        if rows and rows[0][0].next_at <= now:
            events = [_event(notice, incident) for notice, incident in rows]
            batches.append(Batch(channel, [notice.id for notice, _ in rows], events))
    return batches, bool(waiting & set(channels))


def _event(notice: NoticeRow, incident: IncidentRow) -> IncidentEvent:
    return IncidentEvent(
        event=notice.event,
        id=incident.id,
        kind=incident.kind,
        subject=incident.subject,
        team=incident.team,
        text=incident.text,
        begun_at=incident.begun_at,
        recovered_at=incident.recovered_at if notice.event == RECOVERED else None,
    )


def note_delivered(session: Session, batch: Batch) -> None:
    ids = [event.id for event in batch.events]
    mine = IncidentRow.trouble.startswith(f"{batch.channel}: ", autoescape=True)
    session.execute(delete(NoticeRow).where(NoticeRow.id.in_(batch.notices)))
    works_again = update(IncidentRow).where(IncidentRow.id.in_(ids), mine).values(trouble="")
    session.execute(works_again.execution_options(synchronize_session=False))


def note_failed(session: Session, batch: Batch, trouble: str) -> None:
    """Let a batch wait for its next attempt; give up those that were tried often enough."""
    trouble = presentable(f"{batch.channel}: {trouble}", longest=500)
    failed = update(IncidentRow).where(IncidentRow.id.in_([event.id for event in batch.events])).values(trouble=trouble)
    session.execute(failed.execution_options(synchronize_session=False))
    rows = NoticeRow.id.in_(batch.notices)
    session.execute(delete(NoticeRow).where(rows, NoticeRow.attempts >= MOST_ATTEMPTS - 1))
    attempts = session.scalar(select(func.max(NoticeRow.attempts)).where(rows)) or 0
    wait = min(LONGEST_WAIT, FIRST_WAIT * 2**attempts)
    again = update(NoticeRow).where(rows).values(attempts=NoticeRow.attempts + 1, next_at=database_now(session) + wait)
    session.execute(again.execution_options(synchronize_session=False))
