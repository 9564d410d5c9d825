"""Reports which trees, runtimes and release this worker holds: in each session and whenever that changes.

Central shows the trees to users, and offers jobs by the runtimes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

import anyio
import msgspec
from airflow_remote_protocol.messages import MAX_TREES_LISTED, HeldRuntime, Inventory, ReleasePhase, RuntimePhase

from airflow_remote_worker.clock import Clock
from airflow_remote_worker.errors import Refused
from airflow_remote_worker.link.attempts import RETRIED_OF_WORKER, Attempts
from airflow_remote_worker.link.client import Link

log = logging.getLogger(__name__)

REFUSED_PAUSE_S = 300.0
PROGRESS_EVERY_S = 5.0
"""How often the progress of a runtime or a release is reported; other changes are reported at once."""


class InventoryLoop:
    """*current* returns what to report: the trees, the last used first, and the runtimes, and the release."""

    def __init__(self, link: Link, clock: Clock, current: Callable[[], Inventory]) -> None:
        self._link = link
        self._clock = clock
        self._current = current
        self._is_wanted = False
        self._reported: Inventory | None = None
        self._reported_at = 0.0
        self._changed = anyio.Event()

    def on_session(self, *, wanted: bool) -> None:
        """Report again: a session has been opened. *wanted*: central accepts such reports."""
        self._is_wanted, self._reported = wanted, None
        self._changed.set()

    def note_change(self) -> None:
        """Check whether anything has changed."""
        self._changed.set()

    async def run(self) -> None:
        """Report changes, until cancelled."""
        attempts = Attempts(self._link, self._clock, floor_s=1.0, ceiling_s=60.0)
        while True:
            self._changed = anyio.Event()
            now = self._current()
            now = msgspec.structs.replace(now, trees=now.trees[:MAX_TREES_LISTED])
            wait_s = self._wait_s(now)
            if wait_s == 0:
                try:
                    await self._link.report_inventory(now)
                except Refused as error:
                    log.warning("central does not accept the list of what this worker holds: %s", error)
                    await self._clock.sleep(REFUSED_PAUSE_S)
                    continue
                except RETRIED_OF_WORKER as error:
                    await attempts.wait_after(error)
                    continue
                self._reported, self._reported_at = now, self._clock.monotonic()
                attempts.reset()
                wait_s = None
            with anyio.move_on_after(wait_s):
                await self._changed.wait()

    def _wait_s(self, now: Inventory) -> float | None:
        """Return how long to wait before *now* is reported; None: until something has changed."""
        reported = self._reported
        if not self._is_wanted or (reported is not None and _is_same(now, reported)):
            return None
        if reported is None or not _is_same(_without_progress(now), _without_progress(reported)):
            return 0
        return max(0, self._reported_at + PROGRESS_EVERY_S - self._clock.monotonic())


def _is_same(one: Inventory, other: Inventory) -> bool:
    """The order of trees changes with each job, which is not worth a report."""
    return msgspec.structs.replace(one, trees=sorted(one.trees)) == msgspec.structs.replace(other, trees=sorted(other.trees))


def _without_progress(inventory: Inventory) -> Inventory:
    release = inventory.release
    if release and release.phase is ReleasePhase.PREPARING:
        release = msgspec.structs.replace(release, detail="")
    return msgspec.structs.replace(inventory, runtimes=list(_bare(inventory.runtimes)), release=release)


def _bare(runtimes: Iterable[HeldRuntime]) -> Iterable[HeldRuntime]:
    for runtime in runtimes:
        yield msgspec.structs.replace(runtime, detail="") if runtime.phase is RuntimePhase.PREPARING else runtime
