"""Leases that the database has confirmed a moment ago: a task's next Execution API call needn't ask for the same again.

What changes a job's state (`run`, `state`, report, decline, log) never relies on this. What takes a lease back or ends what it
allows is known at once where it happens in this process or is told by NOTIFY, and everywhere when the moment is over.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from airflow_remote_provider.api.pool import LedgerPool
from airflow_remote_provider.ledger import fence
from airflow_remote_provider.ledger.fence import Subject, WorkerLease

HOLDS_S = 1.0
"""A job that was taken back, or given to another worker, reads on for at most this long."""


class LeaseCache:
    """Which leases were open when the database was last asked, and whom they were for."""

    def __init__(self, pool: LedgerPool) -> None:
        self._pool = pool
        self._confirmed: dict[WorkerLease, tuple[float, Subject]] = {}
        """When it was asked, oldest first, and what it said."""
        self._doubts = 0
        self._asking: dict[WorkerLease, object] = {}
        """The newest question about a lease that is under way; none, if the lease was forgotten since it was asked."""

    async def lately(self, lease: WorkerLease) -> Subject:
        """Return whom an open lease is for, confirmed within the last moment.

        Raises:
            LedgerError: the lease is not open.
        """
        known = self._confirmed.get(lease)
        if known is not None and asyncio.get_running_loop().time() - known[0] < HOLDS_S:
            return known[1]
        return await self.anew(lease, fence.check)

    async def anew(self, lease: WorkerLease, verb: Callable[[Any, WorkerLease], Subject]) -> Subject:
        """Let a *verb* that checks the lease do its work; return whom the lease is for.

        Raises:
            LedgerError: the lease is not open.
        """
        self.forget(lease)
        question = self._asking[lease] = object()
        asked_at, doubts = asyncio.get_running_loop().time(), self._doubts
        try:
            subject = await self._pool.jobs.call(verb, lease)
            if doubts == self._doubts and self._asking.get(lease) is question:  # else the answer may be older than the doubt
                self._confirmed[lease] = (asked_at, subject)
        finally:
            if self._asking.get(lease) is question:
                del self._asking[lease]
        self._drop_old(asked_at - HOLDS_S)
        return subject

    async def ending(self, lease: WorkerLease, verb: Callable[[Any, WorkerLease], Subject]) -> Subject:
        """As :meth:`anew`, for a *verb* after which the lease no longer allows what was confirmed before.

        Raises:
            LedgerError: the lease is not open.
        """
        self.forget(lease)
        try:
            return await self._pool.jobs.call(verb, lease)
        finally:
            self.forget(lease)  # what was asked meanwhile may have been answered before the verb's transaction ended

    def forget(self, lease: WorkerLease) -> None:
        """The lease is about to end or to change."""
        self._confirmed.pop(lease, None)
        self._asking.pop(lease, None)

    def doubt(self) -> None:
        """Some job was taken back: believe nothing that was confirmed before."""
        self._doubts += 1
        self._confirmed.clear()

    def _drop_old(self, before: float) -> None:
        for lease, (asked_at, _) in list(self._confirmed.items()):
            if asked_at > before:
                break
            del self._confirmed[lease]
