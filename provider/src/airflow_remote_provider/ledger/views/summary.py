"""Remote Workers summary: one line of counts, for a page that every user has open."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy.orm import Session

from airflow_remote_provider.ledger.queues import QueueDepth, depths
from airflow_remote_provider.ledger.views.scope import EVERYTHING, Scope
from airflow_remote_provider.ledger.views.serving import NO_CAPACITY, capacities
from airflow_remote_provider.ledger.views.workers import count_workers

MOST_NAMED = 5


@dataclass(frozen=True)
class Summary:
    """Counts of the workers and jobs within a user's scope."""

    workers: int
    online: int
    silent: int
    flagged: int
    queued: int
    """Jobs that wait."""
    running: int
    """Jobs that run, or are offered to a worker."""
    unserved: list[str]
    """Queues with waiting jobs that no worker takes, the first few by name."""
    unserved_count: int


def summarize(session: Session, *, silent_after: timedelta, scope: Scope = EVERYTHING) -> Summary:
    """Return the summary. Three statements; five while jobs wait."""
    fleet = count_workers(session, silent_after=silent_after, scope=scope)
    seen = [depth for depth in depths(session) if scope.includes_team(depth.team)]
    unserved = _unserved(session, [depth for depth in seen if depth.queued], silent_after)
    return Summary(
        workers=fleet.workers,
        online=fleet.online,
        silent=fleet.silent,
        flagged=fleet.flagged,
        queued=sum(depth.queued for depth in seen),
        running=sum(depth.offered + depth.running for depth in seen),
        unserved=unserved[:MOST_NAMED],
        unserved_count=len(unserved),
    )


def _unserved(session: Session, waiting: list[QueueDepth], silent_after: timedelta) -> list[str]:
    if not waiting:
        return []
    serving = capacities(session, silent_after=silent_after)
    return sorted({depth.queue for depth in waiting if not serving.get((depth.queue, depth.team), NO_CAPACITY).workers})
