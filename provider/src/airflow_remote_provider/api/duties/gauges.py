"""What the API process that is on duty tells Airflow's metrics now and then: the fleet, and each queue."""

from __future__ import annotations

from datetime import timedelta

from airflow_remote_protocol.presence import Presence
from sqlalchemy.orm import Session

from airflow_remote_provider import metrics
from airflow_remote_provider.compat import database_now
from airflow_remote_provider.ledger.views.queues import list_queues
from airflow_remote_provider.ledger.views.workers import count_workers

MOST_QUEUES = 500
"""Names of queues are people's, and each is a metric of its own; who has more has to look at the API."""


class Gauges:
    """Knows which queues it told of: one that is no more is told to be empty once, or it would seem as deep as it last was."""

    def __init__(self, *, silent_after: timedelta) -> None:
        self._silent_after = silent_after
        self._queues: set[str] = set()

    def tell(self, session: Session) -> None:
        """Tell all gauges. Nine statements."""
        fleet = count_workers(session, silent_after=self._silent_after)
        for presence in Presence:
            metrics.gauge("remote.workers", getattr(fleet, presence.value), tag=presence.value)
        metrics.gauge("remote.workers_flagged", fleet.flagged)
        metrics.gauge("remote.workers_unfit", fleet.unfit)
        metrics.gauge("remote.slots", fleet.slots)
        metrics.gauge("remote.slots_used", fleet.used_slots)
        now = database_now(session)
        told = set()
        for row in list_queues(session, silent_after=self._silent_after)[:MOST_QUEUES]:
            age = timedelta() if row.oldest_queued_at is None else now - row.oldest_queued_at
            _tell_queue(row.queue, row.queued, row.running, age.total_seconds(), row.free_slots)
            told.add(row.queue)
        for gone in self._queues - told:
            _tell_queue(gone, 0, 0, 0.0, 0)
        self._queues = told


def _tell_queue(queue: str, queued: int, running: int, oldest_s: float, free_slots: int) -> None:
    metrics.gauge("remote.queue.queued", queued, tag=queue)
    metrics.gauge("remote.queue.running", running, tag=queue)
    metrics.gauge("remote.queue.oldest_s", oldest_s, tag=queue)
    metrics.gauge("remote.queue.free_slots", free_slots, tag=queue)
