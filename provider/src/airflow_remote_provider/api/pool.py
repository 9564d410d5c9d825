"""The small pool of threads that all ledger calls of one API process share.

However many workers call, no more than this many connections are in use for them. A thread keeps its connection for
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

T = TypeVar("T")

KEPT_S = 30.0
"""A database that came back meanwhile costs each thread one failed call, which is made again.

After that the pool gives out a connection anew, and checks it (`pool_pre_ping`, `pool_recycle`)."""


class LedgerPool:
    """Runs ledger verbs, one transaction each, off the event loop."""

    def __init__(self, threads: int) -> None:
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="remote-ledger")
        self._kept = threading.local()

    async def call(self, verb: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Run `verb(session, *args, **kwargs)` in a transaction of its own and return what it returns."""

        def run() -> T:
            try:
                return compat.in_transaction(lambda session: verb(session, *args, **kwargs), self._connection())
            except DBAPIError:
                self._drop()
                raise

        return await self.blocking(run)

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
