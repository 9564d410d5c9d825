"""The small pool of threads that all ledger calls of one API process share, and the lanes in which requests wait for them.

However many workers call, no more than this many connections are in use for them, and no more than the lanes hold
wait. A thread keeps its connection for
half a minute: taking one out of Airflow's pool asks the database each time whether it is alive, which for a verb of two
statements is a fifth of its round trips.
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
"""A database that came back meanwhile costs each thread one failed call, which is made again.

After that the pool gives out a connection anew, and checks it (`pool_pre_ping`, `pool_recycle`)."""

WORKERS_WAIT = 128
"""How many of a fleet's sessions and polls may wait: about half a second's work. The others come back in their turn."""
JOBS_WAIT = 1024
"""How many calls about jobs may wait. They come from what runs already; the bound is against what we did not foresee."""


class LedgerPool:
    """Runs ledger verbs, one transaction each, off the event loop.

    Requests come through a lane: *workers* (enrolments, sessions, polls: a whole fleet at once after an outage) never takes more
    than half of the threads, so that *jobs* (what a running task waits for) never stands behind it. Central's own loops, one call
    each at a time, come through none.
    """

    def __init__(self, threads: int) -> None:
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="remote-ledger")
        self._kept = threading.local()
        self.workers = LedgerLane(self, "workers", at_once=max(1, threads // 2), waiting=WORKERS_WAIT)
        self.jobs = LedgerLane(self, "jobs", at_once=threads, waiting=JOBS_WAIT)

    async def call(self, verb: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Run `verb(session, *args, **kwargs)` in a transaction of its own and return what it returns."""
        return await self.blocking(lambda: self.here(verb, *args, **kwargs))

    def here(self, verb: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """As :meth:`call`, on one of the pool's threads: as a part of other work that :meth:`blocking` runs."""
        try:
            return compat.in_transaction(lambda session: verb(session, *args, **kwargs), self._connection())
        except DBAPIError as error:
            self._drop()
            diagnose(error)  # here, off the event loop: it may ask the database for the revision of our tables
            raise

    async def blocking(self, work: Callable[[], T]) -> T:
        """Run other blocking work (the log store's) on the same threads."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    def _connection(self) -> Connection:
        """Return this thread's connection, checked within the last seconds."""
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
    """The pool, as requests of one kind may use it."""

    def __init__(self, pool: LedgerPool, name: str, *, at_once: int, waiting: int) -> None:
        self.lane = Lane(name, at_once=at_once, waiting=waiting)
        self._pool = pool

    async def call(self, verb: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """As :meth:`LedgerPool.call`, in turn.

        Raises:
            Refusal: `busy`: the lane is full.
        """
        async with self.lane.place():
            return await self._pool.call(verb, *args, **kwargs)

    async def blocking(self, work: Callable[[], T]) -> T:
        """As :meth:`LedgerPool.blocking`, in turn."""
        async with self.lane.place():
            return await self._pool.blocking(work)
