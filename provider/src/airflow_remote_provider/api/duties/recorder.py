"""Measures the fleet, its queues and each worker every minute, for :mod:`..ledger.history`. Runs in the process on duty."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from airflow_remote_protocol.presence import Presence
from sqlalchemy.orm import Session

from airflow_remote_provider.compat import database_now
from airflow_remote_provider.ledger import history
from airflow_remote_provider.ledger.history import HOURS, MINUTES, QUARTERS, Series, SeriesKind, Value, rounded
from airflow_remote_provider.ledger.views.queues import Load, loads, percentile
from airflow_remote_provider.ledger.views.serving import ServingWorker, list_serving

EVERY_S = MINUTES.span.total_seconds()


class Recorder:
    """Stores a point of the fleet and of each queue every minute, and one of each worker every quarter of an hour.

    Workers are too many for a row each minute, so their values are kept in memory until the quarter is over. They are lost with
    the process: the next one's point then covers less time.
    """

    def __init__(self, *, silent_after: timedelta) -> None:
        self._silent_after = silent_after
        self._gathered: dict[Series, list[tuple[Value, ...]]] = {}
        self._quarter: int | None = None

    def record(self, session: Session) -> None:
        """Store this minute, and each coarser interval that is over."""
        now = database_now(session)
        fleet = list_serving(session, silent_after=self._silent_after)
        of_queues = loads(session, silent_after=self._silent_after)
        known = history.known_queues(session, now)
        values = _fleet(fleet)
        for load in sorted(of_queues, key=lambda load: -load.depth.queued):
            name = load.depth.queue
            if name in known or len(known) < history.MOST_QUEUES:
                known.add(name)
                values[Series(SeriesKind.QUEUE, name, load.depth.team or "")] = _queue(load, now)
        history.add(session, MINUTES, number=MINUTES.number(now), values=values)
        self._gather(session, fleet, QUARTERS.number(now))
        history.fold(session, fine=MINUTES, coarse=QUARTERS, now=now)
        history.fold(session, fine=QUARTERS, coarse=HOURS, now=now)

    def forget(self) -> None:
        """Discard the collected values: another process is on duty and measures now."""
        self._gathered.clear()
        self._quarter = None

    def _gather(self, session: Session, fleet: Sequence[ServingWorker], quarter: int) -> None:
        if self._quarter is not None and quarter != self._quarter:
            points = {
                series: {self._quarter: history.folded(SeriesKind.WORKER, dict(enumerate(some)), len(some))[0]}
                for series, some in self._gathered.items()
            }
            history.put(session, QUARTERS, points)
            self._gathered.clear()
        self._quarter = quarter
        for server in fleet:
            now = (float(server.presence == Presence.ONLINE), float(server.used_slots), float(server.slots))
            self._gathered.setdefault(Series(SeriesKind.WORKER, server.id, server.team or ""), []).append(now)


def _fleet(fleet: Sequence[ServingWorker]) -> dict[Series, Sequence[Value]]:
    """Return the fleet's point of each team. An empty fleet has a point, too: it shows that it was measured."""
    teams: dict[str, list[ServingWorker]] = {"": []}
    for server in fleet:
        teams.setdefault(server.team or "", []).append(server)
    return {
        Series(SeriesKind.FLEET, "", team): (
            sum(server.presence == Presence.ONLINE for server in some),
            sum(server.presence == Presence.SILENT for server in some),
            sum(server.slots for server in some if server.presence == Presence.ONLINE),
            sum(server.used_slots for server in some),
        )
        for team, some in teams.items()
    }


def _queue(load: Load, now: datetime) -> Sequence[Value]:
    oldest = load.depth.oldest_queued_at
    return (
        load.depth.queued,
        load.depth.running,
        0 if oldest is None else rounded(max(0.0, (now - oldest).total_seconds())),
        load.capacity.free_slots,
        percentile(load.waits, 95),
    )
