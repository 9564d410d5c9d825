"""Reports this worker's task runtime and whether it can host tasks: in each session and whenever that changes."""

from __future__ import annotations

import logging
from collections.abc import Callable

import anyio
from airflow_remote_protocol.messages import Runtime

from airflow_remote_worker.clock import Clock
from airflow_remote_worker.errors import Refused
from airflow_remote_worker.link.attempts import RETRIED_OF_WORKER, Attempts
from airflow_remote_worker.link.client import Link

log = logging.getLogger(__name__)

REFUSED_PAUSE_S = 300.0
ASK_AGAIN_S = 300.0
"""How often the runtime is reported again while central offers no jobs: central may have been upgraded."""


class RuntimeLoop:
    """*current* returns the runtime to report; None: not known yet."""

    def __init__(self, link: Link, clock: Clock, current: Callable[[], Runtime | None]) -> None:
        self.refused = ""
        """Why central offers this worker no jobs although its canary passes; empty while it offers jobs."""
        self.on_change: Callable[[], None] = _do_nothing
        self._link = link
        self._clock = clock
        self._current = current
        self._is_wanted = False
        self._reported: Runtime | None = None
        self._changed = anyio.Event()

    def on_session(self, *, wanted: bool) -> None:
        """Report again: a session has been opened. *wanted*: central accepts such reports."""
        self._is_wanted, self._reported = wanted, None
        if not wanted:  # an older central does not check runtimes
            self._set_refused("")
        self._changed.set()

    def note_change(self) -> None:
        """Check whether the runtime has changed."""
        self._changed.set()

    async def run(self) -> None:
        """Report changes, until cancelled."""
        attempts = Attempts(self._link, self._clock, floor_s=1.0, ceiling_s=60.0)
        while True:
            self._changed = anyio.Event()
            runtime = self._current()
            if self._is_wanted and runtime is not None and (self.refused or runtime != self._reported):
                try:
                    refused = await self._link.report_runtime(runtime)
                    self._set_refused("" if runtime.trouble else refused)  # trouble found here was logged before
                    self._reported = runtime
                    attempts.reset()
                except Refused:
                    await self._clock.sleep(REFUSED_PAUSE_S)
                    continue
                except RETRIED_OF_WORKER as error:
                    await attempts.wait_after(error)
                    continue
            with anyio.move_on_after(ASK_AGAIN_S if self.refused else None):
                await self._changed.wait()

    def _set_refused(self, refused: str) -> None:
        if refused == self.refused:
            return
        if refused:
            log.error("central offers this worker no jobs: %s", refused)
        else:
            log.info("central offers this worker jobs again")
        self.refused = refused
        self.on_change()


def _do_nothing() -> None:
    """The default listener."""
