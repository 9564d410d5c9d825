"""Queues as users see them: their jobs, their workers, how long jobs wait, and their settings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from airflow_remote_provider.compat import database_now
from airflow_remote_provider.ledger import runtimes
from airflow_remote_provider.ledger.errors import NotFound
from airflow_remote_provider.ledger.presentable import presentable
from airflow_remote_provider.ledger.queue_policy import bundle_rules
from airflow_remote_provider.ledger.queues import QueueDepth, QueueRule, depths, rules
from airflow_remote_provider.ledger.views.scope import EVERYTHING, Scope
from airflow_remote_provider.ledger.views.serving import NO_CAPACITY, Capacity, capacities
from airflow_remote_provider.models import Job

WAITS_OF = timedelta(hours=1)
MOST_WAITS = 1_000
"""The waiting time of a queue is computed from so many of its newest jobs."""


@dataclass(frozen=True)
class QueueRow:
    """One queue as the API and the CLI show it."""

    queue: str
    queued: int
    offered: int
    running: int
    oldest_queued_at: datetime | None
    workers: int
    """Workers that take its jobs now."""
    slots: int
    """Slots of those workers; a worker counts for every queue that it serves."""
    free_slots: int
    is_unserved: bool
    """Whether jobs wait and no worker takes them."""
    wait_p50_s: float | None
    """Time from queued to begun of the jobs that began in the last hour; None if no job did."""
    wait_p95_s: float | None
    lost_after_s: float | None
    """None: `[remote] lost_after_seconds` applies."""
    changed_by: str
    bundles: list[str] | None
    """Globs of the Dag bundles whose jobs it may have; None: any, or those that the rule of `*` allows."""
    runtime: str | None
    """Name of the runtime from central in which its jobs run; None: `default`."""


def list_queues(session: Session, *, silent_after: timedelta, scope: Scope = EVERYTHING) -> list[QueueRow]:
    """Return every queue that has open jobs, a worker that serves it, or settings.

    Jobs and workers of teams outside *scope* don't count. Nine statements for any size of the fleet and the backlog.
    """
    by_queue: dict[str, list[Load]] = {}
    for load in loads(session, silent_after=silent_after):
        if scope.includes_team(load.depth.team):
            by_queue.setdefault(load.depth.queue, []).append(load)
    decided, allowed, named = rules(session), bundle_rules(session).globs, runtimes.named_by_queues(session)
    if scope.teams is None:
        for name in (*decided, *allowed, *named):
            by_queue.setdefault(name, [])
    return [
        _row(name, by_queue[name], decided.get(name), bundles=allowed.get(name), runtime=named.get(name))
        for name in sorted(by_queue)
    ]


def show_queue(session: Session, name: str, *, silent_after: timedelta, scope: Scope = EVERYTHING) -> QueueRow:
    """Return one queue.

    Raises:
        NotFound: the queue has no jobs, workers or rules within *scope*.
    """
    rows = [row for row in list_queues(session, silent_after=silent_after, scope=scope) if row.queue == name]
    if not rows:
        raise NotFound(
            f"the queue {presentable(name, longest=100)!r} has no jobs, workers or rules; "
            "`airflow remote queues list` shows those that have"
        )
    return rows[0]


@dataclass(frozen=True)
class Load:
    """The jobs and workers of one team in one queue. Jobs only go to workers of their own team."""

    depth: QueueDepth
    capacity: Capacity
    waits: tuple[float, ...]
    """Waiting times, in seconds and ascending, of the newest jobs that began in the last hour."""


def loads(session: Session, *, silent_after: timedelta) -> list[Load]:
    """Return every queue that has open jobs or a worker that serves it, once for each team."""
    depth_of = {(depth.queue, depth.team): depth for depth in depths(session)}
    serving = capacities(session, silent_after=silent_after)
    waits = _waits(session)
    return [
        Load(
            depth=depth_of.get(key) or _empty(*key),
            capacity=serving.get(key, NO_CAPACITY),
            waits=tuple(sorted(waits.get(key, ()))),
        )
        for key in sorted(depth_of.keys() | serving.keys(), key=lambda key: (key[0], key[1] or ""))
    ]


def _empty(queue: str, team: str | None) -> QueueDepth:
    return QueueDepth(queue=queue, queued=0, offered=0, running=0, oldest_queued_at=None, team=team)


def _row(
    name: str, parts: Sequence[Load], rule: QueueRule | None, *, bundles: Sequence[str] | None, runtime: str | None
) -> QueueRow:
    waits = sorted(wait for part in parts for wait in part.waits)
    return QueueRow(
        queue=name,
        queued=sum(part.depth.queued for part in parts),
        offered=sum(part.depth.offered for part in parts),
        running=sum(part.depth.running for part in parts),
        oldest_queued_at=min((part.depth.oldest_queued_at for part in parts if part.depth.oldest_queued_at), default=None),
        workers=sum(part.capacity.workers for part in parts),
        slots=sum(part.capacity.slots for part in parts),
        free_slots=sum(part.capacity.free_slots for part in parts),
        is_unserved=any(part.depth.queued > 0 and not part.capacity.workers for part in parts),
        wait_p50_s=percentile(waits, 50),
        wait_p95_s=percentile(waits, 95),
        lost_after_s=rule.lost_after_s if rule else None,
        changed_by=rule.changed_by if rule else "",
        bundles=None if bundles is None else list(bundles),
        runtime=runtime,
    )


def _waits(session: Session) -> dict[tuple[str, str | None], list[float]]:
    """Return the waiting times, in seconds, of the newest jobs of each queue and team that began in the last hour."""
    since = database_now(session) - WAITS_OF
    nth = func.row_number().over(partition_by=(Job.queue, Job.team), order_by=Job.accepted_at.desc())
    begun = (
        select(Job.queue, Job.team, Job.queued_at, Job.accepted_at, nth.label("nth")).where(Job.accepted_at >= since).subquery()
    )
    waits: dict[tuple[str, str | None], list[float]] = {}
    for row in session.execute(select(begun).where(begun.c.nth <= MOST_WAITS)):
        waits.setdefault((row.queue, row.team), []).append(max(0.0, (row.accepted_at - row.queued_at).total_seconds()))
    return waits


def percentile(ordered: Sequence[float], percent: float) -> float | None:
    """Return the smallest value that *percent* of *ordered* don't exceed (nearest rank); None if *ordered* is empty."""
    if not ordered:
        return None
    return round(ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)], 3)
