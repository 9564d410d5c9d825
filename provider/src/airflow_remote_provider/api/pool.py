"""The small pool of threads that all ledger calls of one API process share.

However many workers call, no more than this many connections are in use for them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from airflow_remote_provider import compat

T = TypeVar("T")


class LedgerPool:
    """Runs ledger verbs, one transaction each, off the event loop."""

    def __init__(self, threads: int) -> None:
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="remote-ledger")

    async def call(self, verb: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Run `verb(session, *args, **kwargs)` in a transaction of its own and return what it returns."""

        return await self.blocking(lambda: compat.in_transaction(lambda session: verb(session, *args, **kwargs)))

    async def blocking(self, work: Callable[[], T]) -> T:
        """Run other blocking work (the log store's) on the same threads."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
