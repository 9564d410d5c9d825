"""Caches leases that the database confirmed within the last second, so that not every Execution API call has to ask it.

Calls that change a job's state (`run`, `state`, report, decline, log) never rely on this. A lease that is revoked or ended is
forgotten at once if that happens in this process or is notified by NOTIFY, and otherwise when the second is over.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from airflow_remote_provider.api.pool import LedgerPool
from airflow_remote_provider.ledger import fence
from airflow_remote_provider.ledger.fence import Subject, WorkerLease

HOLDS_S = 1.0
"""A job that was taken back, or given to another worker, can read for at most this long."""


class LeaseCache:
    """The leases that were open when the database was last asked, with their subjects."""

    def __init__(self, pool: LedgerPool) -> None:
        self._pool = pool
        self._confirmed: dict[WorkerLease, tuple[float, Subject]] = {}
        """Time of the question, oldest first, and the subject."""
        self._resets = 0
        self._asking: dict[WorkerLease, object] = {}
        """The newest question about a lease that is under way. Removed if the lease is forgotten meanwhile."""

    async def get_subject(self, lease: WorkerLease) -> Subject:
        """Return the subject of an open lease, confirmed within the last :data:`HOLDS_S`.

        Raises:
            LedgerError: the lease is not open.
        """
        known = self._confirmed.get(lease)
        if known is not None and asyncio.get_running_loop().time() - known[0] < HOLDS_S:
            return known[1]
        return await self.confirm(lease, fence.check)

    async def confirm(self, lease: WorkerLease, verb: Callable[[Any, WorkerLease], Subject]) -> Subject:
        """Run a *verb* that checks the lease; return the lease's subject.

        Raises:
            LedgerError: the lease is not open.
        """
        self.forget(lease)
        question = self._asking[lease] = object()
        asked_at, resets = asyncio.get_running_loop().time(), self._resets
        try:
            subject = await self._pool.jobs.call(verb, lease)
            # Else the lease may have been forgotten after the database answered.
            if resets == self._resets and self._asking.get(lease) is question:
                self._confirmed[lease] = (asked_at, subject)
        finally:
            if self._asking.get(lease) is question:
                del self._asking[lease]
        self._drop_old(asked_at - HOLDS_S)
        return subject

    async def end_lease(self, lease: WorkerLease, verb: Callable[[Any, WorkerLease], Subject]) -> Subject:
        """As :meth:`confirm`, for a *verb* that ends the lease, or a part of what it allows.

        Raises:
            LedgerError: the lease is not open.
        """
        self.forget(lease)
        try:
            return await self._pool.jobs.call(verb, lease)
        finally:
            self.forget(lease)  # a question meanwhile may have been answered before the verb's transaction ended

    def forget(self, lease: WorkerLease) -> None:
        """Forget a lease that is about to end or to change."""
        self._confirmed.pop(lease, None)
        self._asking.pop(lease, None)

    def forget_all(self) -> None:
        """Forget all leases, because some job was taken back."""
        self._resets += 1
        self._confirmed.clear()

    def _drop_old(self, before: float) -> None:
        for lease, (asked_at, _) in list(self._confirmed.items()):
            if asked_at > before:
                break
            del self._confirmed[lease]
