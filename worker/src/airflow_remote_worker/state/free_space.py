"""Whether the state directory's disk has room for one more job. What it says decides; who acts on it is :mod:`.daemon`.

Running jobs need room for their logs, results and what waits for central; a new one is only taken while that is safe.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

from airflow_remote_worker import system
from airflow_remote_worker.clock import Clock

log = logging.getLogger(__name__)

LOOK_EVERY_S = 5.0
LEAST_FILES = 200
"""Inodes; a job takes about a dozen."""
PROBE = 64 * 1024
"""Bytes; what a quota leaves can't be asked for, only tried."""
FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


class NoRoom(OSError):
    """The disk has no room for another job; the text says how much there is and what to do."""


class Disk:
    """The disk under *root*, of which *least_mb* are to stay free."""

    def __init__(
        self, root: Path, least_mb: float, clock: Clock, *, free: Callable[[Path], tuple[int, int]] = system.free
    ) -> None:
        self.trouble = ""
        """Why there is no room; empty while there is."""
        self.on_change: Callable[[], None] = _nobody
        self._root = root
        self._least = int(least_mb * 1_000_000)
        self._clock = clock
        self._free = free
        self._quota = ""
        """What a write failed of although the disk seemed to have room."""

    def check(self) -> None:
        """Look now.

        Raises:
            NoRoom: a job that is taken now might not be able to say how it ended.
        """
        self._look()
        if self.trouble:
            raise NoRoom(self.trouble)

    def note_failure(self, error: OSError) -> None:
        """A write has failed. If that was for want of room, there is none until a trial write goes well."""
        if error.errno in FULL:
            self._quota = os.strerror(error.errno or 0).lower()
            self._look()

    async def watch(self, make_room: Callable[[int], Awaitable[None]]) -> None:
        """Look every few seconds, until cancelled; *make_room* is told first how many bytes are missing."""
        while True:
            try:
                if (missing := self._least - self._free(self._root)[0]) > 0:
                    await make_room(missing)
            except OSError as error:
                log.error("no room can be made in %s: %s", self._root, error)
            self._look()
            await self._clock.sleep(LOOK_EVERY_S)

    def _look(self) -> None:
        before, self.trouble = self.trouble, self._find_trouble()
        if bool(before) != bool(self.trouble):
            if self.trouble:
                log.error("%s; no new jobs until then, running ones go on", self.trouble)
            else:
                log.warning("the disk of %s has room again", self._root)
            self.on_change()

    def _find_trouble(self) -> str:
        try:
            free, files = self._free(self._root)
        except OSError as error:
            return f"{self._root} can't be used ({error.strerror}); see to that disk"
        if free < self._least:
            what = f"only {free / 1e6:.0f} MB are free in {self._root}"
            return f"disk full: {what}, the worker needs {self._least / 1e6:.0f} MB (min_free_mb); make room there"
        if files < LEAST_FILES:
            return f"disk full: only {files} files (inodes) more fit into {self._root}; remove some there"
        if self._quota and not self._can_write():
            return f"disk full: writing to {self._root} fails ({self._quota}); make room there, or raise its quota"
        self._quota = ""
        return ""

    def _can_write(self) -> bool:
        probe = self._root / ".probe"
        try:
            probe.write_bytes(b"\0" * PROBE)
        except OSError:
            return False
        finally:
            probe.unlink(missing_ok=True)
        return True


def _nobody() -> None:
    """The default listener."""
