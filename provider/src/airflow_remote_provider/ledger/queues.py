"""Queues: what people decided about them, and how deep they are. What waits in them is :mod:`.jobs`' and :mod:`.dispatch`'s."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from airflow_remote_protocol.messages import JobKind
from airflow_remote_protocol.states import JobState
from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session

from airflow_remote_provider.compat import database_now
from airflow_remote_provider.ledger.audit import acted
from airflow_remote_provider.ledger.errors import LedgerError, Unknown
from airflow_remote_provider.models import Job, Queue

LONGEST_NAME = 256

ALL_QUEUES = "*"
"""Its policy holds for every queue, besides the queue's own."""


def locked(session: Session, name: str, *, by: str) -> Queue:
    """Return what was decided about a queue, locked, for *by* to change; a new row if that is nothing yet.

    Raises:
        LedgerError: no name that a queue can have.
    """
    if not 0 < len(name) <= LONGEST_NAME:
        raise LedgerError(f"a queue's name has 1 to {LONGEST_NAME} characters, this one has {len(name)}; correct it")
    queue = session.get(Queue, name, with_for_update=True)
    if queue is None:
        queue = Queue(name=name)
        session.add(queue)
    queue.changed_at, queue.changed_by = database_now(session), by
    return queue


def set_queue(session: Session, name: str, *, lost_after_s: float, by: str) -> None:
    """Decide how long the workers of a queue's jobs may be silent. Jobs that are queued from now on follow it.

    Raises:
        LedgerError: no name that a queue can have, or that of all queues.
    """
    if name == ALL_QUEUES:
        raise LedgerError("for all queues `[remote] lost_after_seconds` decides; name one queue")
    locked(session, name, by=by).lost_after_s = lost_after_s
    acted(session, by, f"set for the queue {name}: lost after {lost_after_s:g} s")


def unset_queue(session: Session, name: str, *, by: str = "unknown") -> None:
    """Let the defaults hold again for this queue. Its policy stays.

    Raises:
        Unknown: nothing was decided about it.
    """
    queue = session.get(Queue, name, with_for_update=True)
    if queue is None or queue.lost_after_s is None:
        raise Unknown(f"nothing was set for the queue {name!r}; `airflow remote queues list` shows what was")
    queue.lost_after_s = None
    queue.changed_at, queue.changed_by = database_now(session), by
    acted(session, by, f"unset the rules of the queue {name}")


@dataclass(frozen=True)
class QueueRule:
    """What people decided about the jobs of one queue."""

    lost_after_s: float
    changed_by: str


def rules(session: Session) -> dict[str, QueueRule]:
    """Return what people decided, by queue. A handful of rows."""
    query = select(Queue.name, Queue.lost_after_s, Queue.changed_by).where(Queue.lost_after_s.is_not(None))
    return {row.name: QueueRule(row.lost_after_s, row.changed_by) for row in session.execute(query)}


@dataclass(frozen=True)
class QueueDepth:
    """How many jobs of one queue and team are where."""

    queue: str
    queued: int
    offered: int
    running: int
    oldest_queued_at: datetime | None
    team: str | None = None


def depths(session: Session) -> list[QueueDepth]:
    """Return every queue that has jobs not ended yet, once for each team that has some; one statement.

    Triggers that a worker hosts are not counted: they take no slot, and wait for days.
    """
    open_states = [state.value for state in JobState if not state.is_ended]
    query = (
        select(Job.queue, Job.team, Job.state, func.count(), func.min(Job.queued_at))
        .where(Job.state.in_(open_states))
        .where(or_(Job.kind != JobKind.TRIGGER.value, Job.state == JobState.QUEUED.value))
        .group_by(Job.queue, Job.team, Job.state)
    )
    found: dict[tuple[str, str | None], dict[str, tuple[int, datetime | None]]] = {}
    for queue, team, state, count, oldest in session.execute(query):
        found.setdefault((queue, team), {})[state] = (count, oldest)
    rows = []
    for (queue, team), states in sorted(found.items(), key=lambda item: (item[0][0], item[0][1] or "")):
        queued, oldest_queued_at = states.get(JobState.QUEUED.value, (0, None))
        rows.append(
            QueueDepth(
                queue=queue,
                queued=queued,
                offered=states.get(JobState.OFFERED.value, (0, None))[0],
                running=states.get(JobState.RUNNING.value, (0, None))[0],
                oldest_queued_at=oldest_queued_at,
                team=team,
            )
        )
    return rows
