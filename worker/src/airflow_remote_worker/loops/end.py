"""Ends the daemon by itself: after its last job (`max_jobs`), or after a time without a job (`idle_exit_s`)."""

from __future__ import annotations

import logging

import anyio

from airflow_remote_worker.clock import Clock
from airflow_remote_worker.lifecycle import Lifecycle
from airflow_remote_worker.session import WorkerSession

log = logging.getLogger(__name__)


class EndLoop:
    """Watches the session, and drains the daemon."""

    def __init__(self, session: WorkerSession, lifecycle: Lifecycle, clock: Clock, *, idle_exit_s: float | None) -> None:
        self._session = session
        self._lifecycle = lifecycle
        self._clock = clock
        self._idle_exit_s = idle_exit_s
        self._idle_since: float | None = None
        """Since when the worker could have had a job and had none (monotonic)."""
        self._changed = anyio.Event()

    def note_change(self) -> None:
        """Note that the worker holds other jobs than before, or that it may take jobs now and could not before."""
        self._changed.set()

    async def run(self) -> None:
        """Drain the daemon when it has no more to do; return then."""
        while True:
            self._changed = anyio.Event()
            if self._session.has_had_its_jobs:
                return self._lifecycle.drain("it has taken its last job (max_jobs), and that has ended")
            left_s = self._left_s(self._clock.monotonic())
            if left_s is not None and left_s <= 0:
                return self._lifecycle.drain(f"it has had no job for {self._idle_exit_s:g} s (idle_exit_s)")
            with anyio.move_on_after(left_s):
                await self._changed.wait()

    def _left_s(self, now: float) -> float | None:
        """Return how many seconds the worker may still be idle; None if it is not idle, or may be for any time."""
        if self._idle_exit_s is None or not self._session.is_idle or self._session.free_slots() < 1:
            self._idle_since = None
            return None
        if self._idle_since is None:
            self._idle_since = now
        return self._idle_since + self._idle_exit_s - now
