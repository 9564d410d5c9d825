"""Checks whether the state directory's disk has room for one more job. :mod:`..daemon` acts on the result.

Running jobs need room for their logs, results and undelivered writes; a new job is taken only while there is enough.
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

CHECK_EVERY_S = 5.0
LEAST_FILES = 200
"""In inodes; a job needs about a dozen."""
PROBE = 64 * 1024
"""In bytes. What a quota leaves can only be found by a trial write."""
FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


class NoRoom(OSError):
    """The disk has no room for another job; the text names the free space and the remedy."""


class Disk:
    """The disk of *root*, on which *least_mb* must stay free."""

    def __init__(
        self, root: Path, least_mb: float, clock: Clock, *, free: Callable[[Path], tuple[int, int]] = system.free_space
    ) -> None:
        self.trouble = ""
        """Why there is no room; empty while there is."""
        self.on_change: Callable[[], None] = _ignore
        self._root = root
        self._least = int(least_mb * 1_000_000)
        self._clock = clock
        self._free = free
        self._quota = ""
        """The error of a write that failed although the disk seemed to have room."""

    def check(self) -> None:
        """Check now.

        Raises:
            NoRoom: a new job might be unable to store its result.
        """
        self._check()
        if self.trouble:
            raise NoRoom(self.trouble)

    def note_failure(self, error: OSError) -> None:
        """Note a failed write. If the disk was full, it counts as full until a trial write succeeds."""
        if error.errno in FULL:
            self._quota = os.strerror(error.errno or 0).lower()
            self._check()

    async def watch(self, make_room: Callable[[int], Awaitable[None]]) -> None:
        """Check every few seconds until cancelled. If bytes are missing, call *make_room* with their number first."""
        while True:
            try:
                if (missing := self.missing()) > 0:
                    await make_room(missing)
            except OSError as error:
                log.error("no space can be freed in %s: %s", self._root, error)
            self._check()
            await self._clock.sleep(CHECK_EVERY_S)

    def missing(self) -> int:
        """Return how many bytes must be freed; not more than 0 if enough are free. Raises: OSError."""
        return self._least - self._free(self._root)[0]

    def _check(self) -> None:
        before, self.trouble = self.trouble, self._find_trouble()
        if bool(before) != bool(self.trouble):
            if self.trouble:
                log.error("%s; this worker takes no new jobs until then, running ones go on", self.trouble)
            else:
                log.warning("the disk of %s has room again", self._root)
            self.on_change()

    def _find_trouble(self) -> str:
        try:
            free, files = self._free(self._root)
        except OSError as error:
            return f"{self._root} can't be used ({error.strerror}); check that disk"
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


def _ignore() -> None:
    """The default callback."""
