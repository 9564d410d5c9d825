"""The small thread pool that all ledger calls of one API process share, and the lanes in which requests wait for it.

However many workers call, the pool uses one database connection per thread, and no more requests wait than the lanes allow. A
thread keeps its connection for half a minute: checking one out of Airflow's pool asks the database each time whether it is alive,
which is a fifth of the round trips of a verb of two statements.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from airflow_remote_provider import compat
from airflow_remote_provider.api.admission.lanes import Lane
from airflow_remote_provider.faults import diagnose

T = TypeVar("T")

KEPT_S = 30.0
"""How long a thread keeps a connection. If the database restarts meanwhile, one call per thread fails and is retried.

After this time, a connection is checked out of Airflow's pool again, which tests it (`pool_pre_ping`, `pool_recycle`)."""

WORKERS_WAIT = 128
"""How many of a fleet's sessions and polls may wait: about half a second's work. The others get a time to retry."""
JOBS_WAIT = 1024
"""How many calls about jobs may wait. They are limited by the number of running jobs; the bound is a safeguard."""
TREES_WAIT = 512
"""How many reads of code may wait. `pack_concurrency` limits the downloads, each of which waits for one read at a time."""


class LedgerPool:
    """Runs ledger verbs, one transaction each, off the event loop.

    Requests use a lane. The lane *workers* (enrolments, sessions, polls: a whole fleet at once after an outage) never uses more
    than half of the threads, and the lane *trees* (downloads of code, which take long) never more than a quarter, so that the
    lane *jobs* (calls that a running task waits for) never waits for them. Central's own loops make one call at a time each and
    use no lane.
    """

    def __init__(self, threads: int) -> None:
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="remote-ledger")
        self._kept = threading.local()
        self.workers = LedgerLane(self, "workers", at_once=max(1, threads // 2), waiting=WORKERS_WAIT)
        self.trees = LedgerLane(self, "trees", at_once=max(1, threads // 4), waiting=TREES_WAIT)
        self.jobs = LedgerLane(self, "jobs", at_once=threads, waiting=JOBS_WAIT)

    async def call(self, verb: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Run `verb(session, *args, **kwargs)` in a transaction of its own and return what it returns."""
        return await self.blocking(lambda: self.here(verb, *args, **kwargs))

    def here(self, verb: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """As :meth:`call`, but on the current thread of the pool, as a part of work that :meth:`blocking` runs."""
        try:
            return compat.in_transaction(lambda session: verb(session, *args, **kwargs), self._connection())
        except DBAPIError as error:
            self._drop()
            diagnose(error)  # here, off the event loop: it may ask the database for the revision of our tables
            raise

    async def blocking(self, work: Callable[[], T]) -> T:
        """Run other blocking work, such as the log store's, on the same threads."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    def _connection(self) -> Connection:
        """Return this thread's connection, which was checked within the last :data:`KEPT_S`."""
        now = time.monotonic()
        if now - getattr(self._kept, "since", -KEPT_S) >= KEPT_S:
            self._drop()
            self._kept.connection = compat.connect()
            self._kept.since = now
        connection: Connection = self._kept.connection
        return connection

    def _drop(self) -> None:
        connection: Connection | None = getattr(self._kept, "connection", None)
        self._kept.__dict__.clear()
        if connection is not None:
            connection.close()

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


class LedgerLane:
    """The part of the pool that requests of one kind may use."""

    def __init__(self, pool: LedgerPool, name: str, *, at_once: int, waiting: int) -> None:
        self.lane = Lane(name, at_once=at_once, waiting=waiting)
        self._pool = pool

    async def call(self, verb: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """As :meth:`LedgerPool.call`, but in the order of the lane.

        Raises:
            Refusal: `busy`: the lane is full.
        """
        async with self.lane.place():
            return await self._pool.call(verb, *args, **kwargs)

    async def blocking(self, work: Callable[[], T]) -> T:
        """As :meth:`LedgerPool.blocking`, but in the order of the lane."""
        async with self.lane.place():
            return await self._pool.blocking(work)
