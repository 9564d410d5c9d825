"""Leases that the database has confirmed a moment ago: a task's next Execution API call needn't ask for the same again.

What changes a job's state (`run`, `state`, report, decline, log) never relies on this. What takes a lease back is heard of at
once where it happens in this process or is told by NOTIFY, and everywhere when the moment is over.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from typing import Any

from airflow_remote_provider.api.pool import LedgerPool
from airflow_remote_provider.ledger import leases
from airflow_remote_provider.ledger.leases import Lease

HOLDS_S = 1.0
"""A job that was taken back, or given to another worker, reads on for at most this long."""


class Checks:
    """Which leases were open when the database was last asked, and for which task instance."""

    def __init__(self, pool: LedgerPool) -> None:
        self._pool = pool
        self._confirmed: dict[Lease, tuple[float, uuid.UUID | None]] = {}
        """When it was asked, oldest first, and what it said."""
        self._doubts = 0

    async def lately(self, lease: Lease) -> uuid.UUID | None:
        """Return the task instance of an open lease, confirmed within the last moment.

        Raises:
            LedgerError: the lease is not open.
        """
        known = self._confirmed.get(lease)
        if known is not None and asyncio.get_running_loop().time() - known[0] < HOLDS_S:
            return known[1]
        return await self.anew(lease, leases.check)

    async def anew(self, lease: Lease, verb: Callable[[Any, Lease], uuid.UUID | None]) -> uuid.UUID | None:
        """Let a *verb* that checks the lease do its work; return the task instance.

        Raises:
            LedgerError: the lease is not open.
        """
        self.forget(lease)
        asked_at, doubts = asyncio.get_running_loop().time(), self._doubts
        ti_id = await self._pool.call(verb, lease)
        if doubts == self._doubts:  # else the answer may be older than what made us doubt
            self._confirmed[lease] = (asked_at, ti_id)
        self._drop_old(asked_at - HOLDS_S)
        return ti_id

    def forget(self, lease: Lease) -> None:
        """The lease is about to end or to change."""
        self._confirmed.pop(lease, None)

    def doubt(self) -> None:
        """Some job was taken back: believe nothing that was confirmed before."""
        self._doubts += 1
        self._confirmed.clear()

    def _drop_old(self, before: float) -> None:
        for lease, (asked_at, _) in list(self._confirmed.items()):
            if asked_at > before:
                break
            del self._confirmed[lease]
