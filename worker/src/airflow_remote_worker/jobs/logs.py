"""Task logs on this machine: the lines that the daemon itself adds, and how long finished ones are kept."""

from __future__ import annotations

import datetime
import os
from pathlib import Path

import msgspec

from airflow_remote_worker.clock import Clock
from airflow_remote_worker.config import KeepLogs
from airflow_remote_worker.spool import JobDir, Spool

TRIM_EVERY_S = 3600.0


def append_line(path: Path, event: str, *, at: float, level: str = "error") -> None:
    """Append a line in the shape of the Task SDK's own. Only before the shim starts or after it has gone."""
    stamp = datetime.datetime.fromtimestamp(at, datetime.timezone.utc).isoformat().replace("+00:00", "Z")
    line = msgspec.json.encode({"timestamp": stamp, "level": level, "event": event, "logger": "airflow_remote_worker"})
    fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        size = os.fstat(fd).st_size
        # A task that was killed may have left half a line.
        broken = size > 0 and _last_byte(fd, size) != b"\n"
        os.write(fd, (b"\n" if broken else b"") + line + b"\n")
    finally:
        os.close(fd)


def trim(spool: Spool, keep: KeepLogs, now: float) -> int:
    """Remove the directories of closed jobs that are too old or, oldest first, too many bytes; return how many went.

    A job that is running, unshipped or unreported has no `closed.json` and is never touched.
    """
    closed = sorted(((found.at, job) for job in spool if (found := job.closed())), key=lambda pair: pair[0])
    sizes = {job.path: _size(job) for _, job in closed}
    excess = sum(sizes.values()) - keep.total_mb * 1_000_000
    removed = 0
    for at, job in closed:
        if excess > 0 or now - at > keep.days * 86_400:
            job.remove()
            excess -= sizes[job.path]
            removed += 1
    return removed


async def keep_trimmed(spool: Spool, keep: KeepLogs, clock: Clock) -> None:
    """Trim now and every hour, until cancelled."""
    while True:
        trim(spool, keep, clock.wall())
        await clock.sleep(TRIM_EVERY_S * (0.9 + 0.2 * clock.chance()))


def _last_byte(fd: int, size: int) -> bytes:
    os.lseek(fd, size - 1, os.SEEK_SET)
    return os.read(fd, 1)


def _size(job: JobDir) -> int:
    return sum(file.stat().st_size for file in job.path.iterdir() if file.is_file())
