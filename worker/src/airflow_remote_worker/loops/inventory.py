"""Reports which trees this worker holds: in each session and whenever that changes. Central only shows it to users."""

from __future__ import annotations

import logging
from collections.abc import Callable

import anyio
from airflow_remote_protocol.messages import MAX_TREES_LISTED

from airflow_remote_worker.clock import Clock
from airflow_remote_worker.errors import Refused
from airflow_remote_worker.link.attempts import RETRIED_OF_WORKER, Attempts
from airflow_remote_worker.link.client import Link

log = logging.getLogger(__name__)

REFUSED_PAUSE_S = 300.0


class InventoryLoop:
    """*current* returns the trees, the last used first."""

    def __init__(self, link: Link, clock: Clock, current: Callable[[], list[str]]) -> None:
        self._link = link
        self._clock = clock
        self._current = current
        self._is_wanted = False
        self._reported: set[str] | None = None
        self._changed = anyio.Event()

    def on_session(self, *, wanted: bool) -> None:
        """Report again: a session has been opened. *wanted*: central accepts such reports."""
        self._is_wanted, self._reported = wanted, None
        self._changed.set()

    def note_change(self) -> None:
        """Check whether the set of trees has changed."""
        self._changed.set()

    async def run(self) -> None:
        """Report changes, until cancelled."""
        attempts = Attempts(self._link, self._clock, floor_s=1.0, ceiling_s=60.0)
        while True:
            self._changed = anyio.Event()
            trees = self._current()[:MAX_TREES_LISTED]
            if self._is_wanted and set(trees) != self._reported:
                try:
                    await self._link.report_inventory(trees)
                except Refused as error:
                    log.warning("central does not accept the list of this worker's code: %s", error)
                    await self._clock.sleep(REFUSED_PAUSE_S)
                    continue
                except RETRIED_OF_WORKER as error:
                    await attempts.wait_after(error)
                    continue
                self._reported = set(trees)
                attempts.reset()
            await self._changed.wait()
