"""Which runtimes and which release each worker is to have: answered from memory, so that a poll needs no statement."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import msgspec
from airflow_remote_protocol.codec import encode
from airflow_remote_protocol.messages import RuntimeRef, Runtimes, WantedRelease

from airflow_remote_provider.api.pool import LedgerPool
from airflow_remote_provider.ledger import runtimes
from airflow_remote_provider.ledger.assignments import Assignment, Host, Plan, assign, choose_release, usable
from airflow_remote_provider.ledger.workers import WorkerRecord

MOST_LISTS = 1000
"""Lists that are remembered. Workers of one platform, whose queues have the same runtimes, share one."""


@dataclass(frozen=True)
class ReleaseNews:
    """The release that the worker is to run; None: it keeps the one that it runs."""

    wanted: WantedRelease | None


class PlannedRuntimes:
    """The plan as this process knows it. It is loaded when the first worker needs it; before that, it costs nothing."""

    def __init__(self, pool: LedgerPool) -> None:
        self.plan = Plan()
        self.on_change: Callable[[], None] = lambda: None
        """Called when another plan was loaded, whichever call loaded it."""
        self._pool = pool
        self._is_loaded = False
        self._loading = asyncio.Lock()
        self._begun = 0
        self._done = 0
        """The numbers of the newest refresh that was begun, and of the newest that was completed."""
        self._lists: dict[tuple[tuple[RuntimeRef, ...], tuple[str, ...]], Runtimes] = {}

    async def load(self) -> None:
        """Load the plan, unless it is loaded."""
        if self._is_loaded:
            return
        async with self._loading:
            if not self._is_loaded:
                self._set(await self._pool.call(runtimes.load_plan))
                self._is_loaded = True

    async def refresh(self) -> None:
        """Load the plan again if it has changed. One statement if it has not, and none if no worker has needed it yet."""
        if not self._is_loaded:
            return
        async with self._loading:
            await self._refresh()

    async def catch_up(self) -> None:
        """Refresh so that all changes before this call are known. Concurrent calls share one refresh."""
        if not self._is_loaded:
            return
        asked = self._begun
        async with self._loading:
            if self._done <= asked:
                await self._refresh()

    async def _refresh(self) -> None:
        self._begun = number = self._begun + 1
        if await self._pool.call(runtimes.plan_versions) != self.plan.versions:
            self._set(await self._pool.call(runtimes.load_plan))
            self.on_change()
        self._done = number

    def _set(self, plan: Plan) -> None:
        self.plan = plan
        self._lists.clear()

    def list_for(self, host: Host) -> Runtimes:
        """Return what *host* is to have. The plan must be loaded."""
        assigned = assign(self.plan, host)
        key = assigned.wanted, assigned.kept
        if (known := self._lists.get(key)) is not None:
            return known
        if len(self._lists) >= MOST_LISTS:
            self._lists.clear()
        made = self._lists[key] = _as_list(assigned)
        return made

    def wants(self, host: Host, digest: str) -> bool:
        """Return whether *host* is to have this tree of a runtime."""
        return assign(self.plan, host).wants(digest)

    def release_for(self, host: Host) -> WantedRelease | None:
        """Return the release that *host* is to run; None: the one that it runs. The plan must be loaded."""
        return choose_release(self.plan.releases, host)

    def news_for(
        self, worker: WorkerRecord, revision: str | None, serial: int | None
    ) -> tuple[Runtimes | None, ReleaseNews | None]:
        """Return what differs from what *worker* was sent: the runtimes of *revision*, and the release *serial*.

        The plan must be loaded if the worker takes runtimes or releases.
        """
        runtimes = None
        if worker.host is not None and revision is not None:
            listed = self.list_for(worker.host)
            runtimes = listed if listed.revision != revision else None
        if worker.release_host is None or serial is None:
            return runtimes, None
        wanted = self.release_for(worker.release_host)
        return runtimes, ReleaseNews(wanted) if (wanted.serial if wanted else 0) != serial else None

    def serves(self, host: Host | None, queue: str) -> bool:
        """Return whether a worker has the runtime of this queue's jobs ready; None: its site has the runtime."""
        return host is None or usable(self.plan, host, queue) is not None


def _as_list(assigned: Assignment) -> Runtimes:
    unnamed = Runtimes("", list(assigned.wanted), list(assigned.kept))
    return msgspec.structs.replace(unnamed, revision=hashlib.sha256(encode(unnamed)).hexdigest()[:32])
