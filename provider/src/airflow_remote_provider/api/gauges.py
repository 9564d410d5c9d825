"""What the API process that is on duty tells Airflow's metrics now and then: the fleet, and each queue."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy.orm import Session

from airflow_remote_provider import metrics
from airflow_remote_provider.compat import database_now
from airflow_remote_provider.ledger.views.queues import list_queues
from airflow_remote_provider.ledger.views.workers import count_workers

MOST_QUEUES = 500
"""Names of queues are people's, and each is a metric of its own; who has more has to look at the API."""


def tell(session: Session, *, silent_after: timedelta) -> None:
    """Tell all gauges. Eight statements."""
    fleet = count_workers(session, silent_after=silent_after)
    for presence in ("online", "silent", "gone"):
        metrics.gauge("remote.workers", getattr(fleet, presence), tag=presence)
    metrics.gauge("remote.workers_flagged", fleet.flagged)
    metrics.gauge("remote.slots", fleet.slots)
    metrics.gauge("remote.slots_used", fleet.used_slots)
    now = database_now(session)
    for row in list_queues(session, silent_after=silent_after)[:MOST_QUEUES]:
        age = timedelta() if row.oldest_queued_at is None else now - row.oldest_queued_at
        metrics.gauge("remote.queue.queued", row.queued, tag=row.queue)
        metrics.gauge("remote.queue.running", row.running, tag=row.queue)
        metrics.gauge("remote.queue.oldest_s", age.total_seconds(), tag=row.queue)
        metrics.gauge("remote.queue.free_slots", row.free_slots, tag=row.queue)
