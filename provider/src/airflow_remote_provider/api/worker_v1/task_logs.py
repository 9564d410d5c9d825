"""Writes task logs to the log store: finds the file for a chunk, and checks that the lease still has it during the write.

The place of a lease is queried once. Each chunk then checks by one statement, under the file's lock, that it has not changed: a
newer job may take the path over at any moment, and nothing may be appended after its lines (ADR 0023).
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable
from functools import partial

from sqlalchemy.orm import Session

from airflow_remote_provider.api.pool import LedgerPool
from airflow_remote_provider.ledger import log_places
from airflow_remote_provider.ledger.fence import WorkerLease
from airflow_remote_provider.ledger.log_places import LogPlace
from airflow_remote_provider.stores import LogStore, Unstorable

log = logging.getLogger(__name__)

MOST_PLACES = 10_000
"""Places that are remembered, at some hundred bytes each: more than the jobs that log through one process at once."""
MOST_MOVES = 5
"""How often a place may change while one chunk is written. It changes once for each job that takes the path over."""


class _Moved(Exception):
    """The lease's place in the store has changed since it was queried; nothing was written."""


class TaskLogs:
    """Writes the task logs of one API process."""

    def __init__(self, pool: LedgerPool, store: LogStore) -> None:
        self._pool = pool
        self._store = store
        self._places: OrderedDict[WorkerLease, LogPlace] = OrderedDict()

    async def create(self, path: str) -> None:
        """Create an empty file when a job is accepted: without one, Airflow's UI would ask the worker for it over the network.

        A failure is only logged; the task is not affected, and the first chunk fails in the same way.
        """
        try:
            await self._pool.jobs.blocking(lambda: self._store.create(path))
        except (OSError, Unstorable) as error:
            log.warning("Can't create the empty log file of an accepted job (%s): %s", path, error)

    async def append(self, lease: WorkerLease, offset: int, body: Callable[[], bytes]) -> int:
        """Append the bytes that *body* returns at *offset* of the lease's log; return how many bytes of it central holds.

        Raises:
            LedgerError: the lease is not, or no longer, this worker's.
            WrongOffset, Unstorable: as :meth:`..stores.LogStore.append`.
        """
        for _ in range(MOST_MOVES):
            place = self._places.get(lease) or await self._place(lease)
            if place is None:
                continue
            try:
                return await self._pool.jobs.blocking(partial(self._append, lease, place, offset=offset, body=body))
            except _Moved:
                self._places.pop(lease, None)
        raise RuntimeError(f"the log of job {lease.job_id} was taken over {MOST_MOVES} times while one chunk was written")

    def _append(self, lease: WorkerLease, place: LogPlace, *, offset: int, body: Callable[[], bytes]) -> int:
        assert place.path is not None and place.base is not None
        confirm = partial(self._pool.here, _confirm, lease, place)
        return self._store.append(place.path, base=place.base, offset=offset, body=body(), confirm=confirm)

    async def _place(self, lease: WorkerLease) -> LogPlace | None:
        """Return the lease's place and remember it; None if it was only now created, and must be queried again."""
        place = await self._pool.jobs.call(log_places.log_place, lease)
        if place.path is None:
            await self._pool.jobs.blocking(lambda: self._fix(log_places.end_log, lease, place))
            return None
        if place.base is None:
            await self._pool.jobs.blocking(lambda: self._fix(log_places.begin_log, lease, place))
            return None
        self._places[lease] = place
        while len(self._places) > MOST_PLACES:
            self._places.popitem(last=False)
        return place

    def _fix(self, verb: Callable[[Session, WorkerLease, int], object], lease: WorkerLease, place: LogPlace) -> None:
        # Measured before the transaction, because an append holds the file's lock while it queries the database.
        self._pool.here(verb, lease, self._store.size(place.own_path))


def _confirm(session: Session, lease: WorkerLease, place: LogPlace) -> None:
    """Raises: _Moved."""
    if log_places.log_place(session, lease) != place:
        raise _Moved
