"""Task logs on this machine: the lines that the daemon itself adds, and the retention of finished jobs' directories.

A job that runs, or whose log or report central does not have yet, has no `closed.json` and is never removed.
"""

from __future__ import annotations

import contextlib
import datetime
import logging
import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import anyio
import anyio.to_thread
import msgspec

from airflow_remote_worker.clock import Clock
from airflow_remote_worker.config import KeepLogs
from airflow_remote_worker.state.spool import JobDir, Spool

log = logging.getLogger(__name__)

TRIM_EVERY_S = 3600.0
GATHER_S = 5.0
"""Jobs that end within this time are trimmed together."""
LONGEST_OWN_LOG = 10_000_000
"""Bytes of a `zygote.log` or `shim.log`. Airflow's supervisor writes a few hundred bytes; a plugin may write more."""


def append_line(path: Path, event: str, *, at: float, level: str = "error") -> None:
    """Append a line in the format of the Task SDK. Only before the shim starts or after it has exited."""
    line = format_line(event, at, level=level)
    fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        size = os.fstat(fd).st_size
        # A task that was killed may have left half a line.
        broken = size > 0 and _last_byte(fd, size) != b"\n"
        os.write(fd, (b"\n" if broken else b"") + line)
    finally:
        os.close(fd)


def format_line(event: str, at: float, *, level: str = "error") -> bytes:
    """Return a line in the format of the Task SDK."""
    stamp = datetime.datetime.fromtimestamp(at, datetime.timezone.utc).isoformat().replace("+00:00", "Z")
    line = {"timestamp": stamp, "level": level, "event": event, "logger": "airflow_remote_worker"}
    return msgspec.json.encode(line) + b"\n"


class Finished(NamedTuple):
    """Something that may be removed: a closed job's directory, or a path in quarantine."""

    at: float
    path: Path
    size: int


class LogKeeper:
    """Removes finished jobs' directories, and paths in quarantine, by age and total size, the oldest first."""

    def __init__(self, spool: Spool, *, quarantine: Path, keep: KeepLogs, clock: Clock) -> None:
        self._spool = spool
        self._quarantine = quarantine
        self._keep = keep
        self._clock = clock
        self._total = 0
        self._grown = anyio.Event()

    def note_closed(self, job: JobDir) -> None:
        """Count this job's directory; if the total is too large, the oldest are removed soon."""
        self._total += _size(job.path)
        if self._total > self._limit:
            self._grown.set()

    async def run(self, process_logs: Callable[[], list[Path]]) -> None:
        """Trim now, every hour, and when the total is too large, until cancelled; truncate *process_logs* at their limit."""
        while True:
            self._grown = anyio.Event()
            try:
                await anyio.to_thread.run_sync(self.trim)
            except OSError as error:
                log.error("old logs can't be removed: %s; trying again within the hour", error)
            for path in process_logs():
                truncate_log(path)
            with anyio.move_on_after(TRIM_EVERY_S * (0.9 + 0.2 * self._clock.chance())):
                await self._grown.wait()
                await self._clock.sleep(GATHER_S)

    async def free(self, wanted: int) -> None:
        """Remove the oldest finished jobs now, whatever their age, to free *wanted* bytes. Central has their logs."""
        await anyio.to_thread.run_sync(partial(self.trim, wanted=wanted))

    def trim(self, wanted: int = 0) -> int:
        """Remove what is too old and, oldest first, what exceeds the limit; return how many were removed.

        May take a while: do not call it in the event loop.
        """
        now = self._clock.wall()
        finished = sorted(self._finished())
        total = sum(entry.size for entry in finished)
        keep = min(self._limit, total - wanted)
        removed = 0
        for entry in finished:
            if total > keep or now - entry.at > self._keep.days * 86_400:
                if entry.path.is_dir():
                    shutil.rmtree(entry.path, ignore_errors=True)
                else:
                    with contextlib.suppress(OSError):
                        entry.path.unlink()
                total -= entry.size
                removed += 1
        self._total = total
        if wanted and removed:
            log.warning("the disk is nearly full: removed the logs of %d finished jobs, which central has", removed)
        return removed

    @property
    def _limit(self) -> float:
        return self._keep.total_mb * 1_000_000

    def _finished(self) -> list[Finished]:
        closed = [Finished(found.at, job.path, _size(job.path)) for job in self._spool if (found := job.closed())]
        with contextlib.suppress(FileNotFoundError):
            for path in self._quarantine.iterdir():
                with contextlib.suppress(OSError):
                    closed.append(Finished(path.lstat().st_mtime, path, _size(path)))
        return closed


def truncate_log(path: Path, longest: int = LONGEST_OWN_LOG) -> None:
    """Empty a log of our own processes that has grown too long, and note that in it. Its writers use append mode."""
    with contextlib.suppress(OSError):  # the file does not exist
        size = path.stat().st_size
        if size > longest:
            with path.open("r+b") as file:
                file.truncate(0)
                file.write(f"… {size} bytes were dropped here: longer than {longest}\n".encode())


def _last_byte(fd: int, size: int) -> bytes:
    os.lseek(fd, size - 1, os.SEEK_SET)
    return os.read(fd, 1)


def _size(path: Path) -> int:
    """Return the disk space of *path* in bytes: many small files take more than their contents."""
    total = 0
    with contextlib.suppress(OSError):
        total += path.lstat().st_blocks * 512
        if path.is_dir() and not path.is_symlink():
            total += sum(_size(entry) for entry in path.iterdir())
    return total
