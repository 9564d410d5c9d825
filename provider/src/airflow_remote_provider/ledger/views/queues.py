"""Queues as people see them: what waits and runs, who serves them, how long jobs wait, what was decided about them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from airflow_remote_provider.compat import database_now
from airflow_remote_provider.ledger.queues import QueueDepth, depths
from airflow_remote_provider.ledger.views.scope import EVERYTHING, Scope
from airflow_remote_provider.ledger.views.serving import Server, servers
from airflow_remote_provider.models import Job

WAITS_OF = timedelta(hours=1)
MOST_WAITS = 20_000
"""So many of the newest jobs tell how long jobs wait."""


@dataclass(frozen=True)
class QueueRow:
    """One queue as people see it."""

    queue: str
    queued: int
    offered: int
    running: int
    oldest_queued_at: datetime | None
    workers: int
    """That take its jobs now."""
    slots: int
    """Of those workers; each counts for every queue that it serves."""
    free_slots: int
    is_unserved: bool
    """Jobs wait, and no worker takes any."""
    wait_p50_s: float | None
    """From queued to begun, of the jobs that were queued in the last hour; None: none has begun."""
    wait_p95_s: float | None
    lost_after_s: float | None
    """None: as `[remote] lost_after_seconds` says."""
    changed_by: str


def list_queues(session: Session, *, silent_after: timedelta, scope: Scope = EVERYTHING) -> list[QueueRow]:
    """Return every queue that has jobs not ended yet, that a worker serves, or about which something was decided.

    Six statements, whatever the fleet and the backlog.
    """
    depth_of = {depth.queue: depth for depth in depths(session)}
    serving: dict[str, list[Server]] = {}
    for server in servers(session, silent_after=silent_after):
        if scope.includes_team(server.team):
            for queue in server.queues:
                serving.setdefault(queue, []).append(server)
    waits = _waits(session)
    return [
        _row(name, depth_of.get(name, QueueDepth(name, 0, 0, 0, None)), serving.get(name, ()), waits.get(name, ()))
        for name in sorted(depth_of.keys() | serving.keys())
    ]


def _row(name: str, depth: QueueDepth, serving: Iterable[Server], waits: Sequence[float]) -> QueueRow:
    live = [server for server in serving if server.takes_jobs]
    return QueueRow(
        queue=name,
        queued=depth.queued,
        offered=depth.offered,
        running=depth.running,
        oldest_queued_at=depth.oldest_queued_at,
        workers=len(live),
        slots=sum(server.slots for server in live),
        free_slots=sum(server.free_slots for server in live),
        is_unserved=depth.queued > 0 and not live,
        wait_p50_s=percentile(waits, 50),
        wait_p95_s=percentile(waits, 95),
        lost_after_s=depth.lost_after_s,
        changed_by=depth.changed_by,
    )


def _waits(session: Session) -> dict[str, list[float]]:
    """Return, by queue and in order, how long jobs waited, in seconds."""
    since = database_now(session) - WAITS_OF
    query = (
        select(Job.queue, Job.queued_at, Job.accepted_at)
        .where(Job.queued_at >= since, Job.accepted_at.is_not(None))
        .order_by(Job.queued_at.desc())
        .limit(MOST_WAITS)
    )
    waits: dict[str, list[float]] = {}
    for queue, queued_at, accepted_at in session.execute(query):
        if accepted_at is not None:
            waits.setdefault(queue, []).append((accepted_at - queued_at).total_seconds())
    return {queue: sorted(some) for queue, some in waits.items()}


def percentile(ordered: Sequence[float], percent: float) -> float | None:
    """Return the least value that so many *percent* of *ordered* don't exceed (nearest rank); None of none."""
    if not ordered:
        return None
    return round(ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)], 3)
