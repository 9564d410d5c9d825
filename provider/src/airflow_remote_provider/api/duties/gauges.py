"""Reports gauges of the fleet and of each queue to Airflow's metrics, from the API process that is on duty."""

from __future__ import annotations

from datetime import timedelta

from airflow_remote_protocol.presence import Presence
from sqlalchemy.orm import Session

from airflow_remote_provider import metrics
from airflow_remote_provider.compat import database_now
from airflow_remote_provider.ledger.views.queues import list_queues
from airflow_remote_provider.ledger.views.releases import count_release_phases
from airflow_remote_provider.ledger.views.runtimes import count_phases
from airflow_remote_provider.ledger.views.workers import count_workers

MOST_QUEUES = 500
"""Users choose queue names, and each is a metric of its own. An installation with more queues has to use the REST API."""
MOST_SERIALS = 200
"""Serials of runtimes, or of releases, and phases that are reported; each is a metric of its own."""


class Gauges:
    """Remembers what was reported: what is gone is reported as empty once, so that its last value doesn't stay."""

    def __init__(self, *, silent_after: timedelta) -> None:
        self._silent_after = silent_after
        self._queues: set[str] = set()
        self._planned: dict[str, set[str]] = {}
        """By metric."""

    def report(self, session: Session) -> None:
        """Report all gauges. Takes twenty statements."""
        fleet = count_workers(session, silent_after=self._silent_after)
        for presence in Presence:
            metrics.set_gauge("remote.workers", getattr(fleet, presence.value), tag=presence.value)
        metrics.set_gauge("remote.workers_flagged", fleet.flagged)
        metrics.set_gauge("remote.workers_unfit", fleet.unfit)
        metrics.set_gauge("remote.slots", fleet.slots)
        metrics.set_gauge("remote.slots_used", fleet.used_slots)
        now = database_now(session)
        reported = set()
        for row in list_queues(session, silent_after=self._silent_after)[:MOST_QUEUES]:
            age = timedelta() if row.oldest_queued_at is None else now - row.oldest_queued_at
            _report_queue(
                row.queue, queued=row.queued, running=row.running, oldest_s=age.total_seconds(), free_slots=row.free_slots
            )
            reported.add(row.queue)
        for gone in self._queues - reported:
            _report_queue(gone, queued=0, running=0, oldest_s=0.0, free_slots=0)
        self._queues = reported
        self._report_planned(session)

    def _report_planned(self, session: Session) -> None:
        runtimes = {f"{name}-{serial}-{phase}": count for (name, serial, phase), count in count_phases(session).items()}
        releases = {f"{serial}-{phase}": count for (serial, phase), count in count_release_phases(session).items()}
        for metric, counts in (("remote.runtime.workers", runtimes), ("remote.release.workers", releases)):
            found = dict(sorted(counts.items())[-MOST_SERIALS:])
            for tag in self._planned.get(metric, set()) - found.keys():
                metrics.set_gauge(metric, 0, tag=tag)
            for tag, workers in found.items():
                metrics.set_gauge(metric, workers, tag=tag)
            self._planned[metric] = set(found)


def _report_queue(queue: str, *, queued: int, running: int, oldest_s: float, free_slots: int) -> None:
    metrics.set_gauge("remote.queue.queued", queued, tag=queue)
    metrics.set_gauge("remote.queue.running", running, tag=queue)
    metrics.set_gauge("remote.queue.oldest_s", oldest_s, tag=queue)
    metrics.set_gauge("remote.queue.free_slots", free_slots, tag=queue)
