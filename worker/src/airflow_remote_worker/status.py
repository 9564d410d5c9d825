"""`status.json` in the state directory: what the daemon does now, for `airflow-remote-worker status`."""

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
"""At least this long between two writings of `status.json`; forty jobs that end at once are one change to people."""


class StatusFile:
    """Writes what *describe* returns to *path* when it has changed, then calls *on_written*. Never a reason to fail."""

    def __init__(self, path: Path, describe: Callable[[], dict[str, Any]], on_written: Callable[[], None], clock: Clock) -> None:
        self._path = path
        self._describe = describe
        self._on_written = on_written
        self._clock = clock
        self._changed = anyio.Event()

    def note_change(self) -> None:
        """Have the file written soon."""
        self._changed.set()

    async def run(self) -> None:
        """Write each change at once, but not too often; until cancelled."""
        while True:
            await self._changed.wait()
            self._changed = anyio.Event()
            self.write()
            await self._clock.sleep(STATUS_EVERY_S)

    def write(self, *, ended: bool = False) -> None:
        """Write the file. *ended*: the daemon has ended as it should."""
        status = {"pid": os.getpid(), "ended": ended, **self._describe()}
        with contextlib.suppress(OSError):
            write(self._path, sealed(msgspec.json.encode(status)))
        self._on_written()
