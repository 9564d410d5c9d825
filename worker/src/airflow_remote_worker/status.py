"""`status.json` in the state directory: the daemon's present state, for `airflow-remote-worker status`."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import msgspec

from airflow_remote_worker.clock import Clock
from airflow_remote_worker.local.seal import sealed
from airflow_remote_worker.state.files import write

STATUS_EVERY_S = 0.5
"""The shortest time between two writes of `status.json`: forty jobs that end at once cause one write."""


class StatusFile:
    """Writes what *describe* returns to *path* when it has changed, then calls *on_written*. A failed write is ignored."""

    def __init__(
        self, path: Path, *, describe: Callable[[], dict[str, Any]], on_written: Callable[[], None], clock: Clock
    ) -> None:
        self._path = path
        self._describe = describe
        self._on_written = on_written
        self._clock = clock
        self._changed = anyio.Event()

    def note_change(self) -> None:
        """Schedule a write."""
        self._changed.set()

    async def run(self) -> None:
        """Write after each change, at most every :data:`STATUS_EVERY_S`; until cancelled."""
        while True:
            await self._changed.wait()
            self._changed = anyio.Event()
            self.write()
            await self._clock.sleep(STATUS_EVERY_S)

    def write(self, *, ended: bool = False) -> None:
        """Write the file. *ended*: the daemon has ended regularly."""
        status = {"pid": os.getpid(), "ended": ended, **self._describe()}
        with contextlib.suppress(OSError):
            write(self._path, sealed(msgspec.json.encode(status)))
        self._on_written()
