"""A log file that survives a full disk: bytes that can't be written are dropped, counted, and noted in the log where they are
missing.

The Task SDK's supervisor, and its task with it, dies of an `OSError` on its log. A log is worth less than a task.
"""

from __future__ import annotations

import errno
import io
import json
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS})
"""Errors of a disk that may have room again later. EFBIG: a limit on the size of one file (`ulimit -f`)."""
TRY_AGAIN_S = 1.0
"""Between two attempts to write the note: incomplete notes would otherwise fill a disk that has a few bytes left."""


class LossyFile(io.RawIOBase):
    """Appends to *path*; a write never fails because the disk is full."""

    def __init__(self, path: str | Path, *, fd: int | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self.name = str(path)
        self.lost = 0
        """Bytes that were dropped and are not noted in the log yet."""
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600) if fd is None else fd
        self._owns = fd is None
        self._clock = clock
        self._not_before = 0.0
        self._why = ""
        self._mid_line = False

    def write(self, body: Any) -> int:
        line = bytes(body)
        if self.lost and (self._clock() < self._not_before or not self.mark()):
            self.lost += len(line)
        elif (taken := self._put(line)) < len(line):
            self.lost += len(line) - taken
            self._not_before = self._clock() + TRY_AGAIN_S
        return len(line)

    def mark(self) -> bool:
        """Note in the log how many bytes are missing here; return False if there is no room for that yet."""
        if not self.lost:
            return True
        event = f"{self.lost} bytes of this log were lost here: {self._why} on the worker's disk; the job itself went on"
        stamp = datetime.now(tz=timezone.utc).isoformat()
        line = {"timestamp": stamp, "level": "warning", "event": event, "logger": "airflow_remote_worker.shim"}
        text = (b"\n" if self._mid_line else b"") + json.dumps(line).encode() + b"\n"
        if self._put(text) < len(text):
            self._not_before = self._clock() + TRY_AGAIN_S
            return False
        self.lost = 0
        return True

    def fileno(self) -> int:
        return self._fd

    def writable(self) -> bool:
        return True

    def close(self) -> None:
        if not self.closed:
            super().close()
            if self._owns:
                with suppress(OSError):  # EIO, ENOSPC of a network drive: nothing can be done
                    os.close(self._fd)

    def _put(self, body: bytes) -> int:
        """Write as many bytes as there is room for; return their number."""
        done = 0
        while done < len(body):
            try:
                done += os.write(self._fd, body[done:])
            except OSError as error:
                if error.errno not in NO_ROOM:
                    raise
                self._why = os.strerror(error.errno or 0).lower()
                break
        if done:
            self._mid_line = body[done - 1 : done] != b"\n"
        return done


def guard_stdio() -> None:
    """Make stdout and stderr of this process (`shim.log` or `zygote.log`) survive a full disk too."""
    for name, fd in (("stdout", 1), ("stderr", 2)):
        if not isinstance(getattr(getattr(sys, name), "buffer", None), LossyFile):
            raw = LossyFile(f"<{name}>", fd=fd)
            # No buffer: a fork would duplicate its content.
            setattr(sys, name, io.TextIOWrapper(raw, encoding="utf-8", errors="replace", write_through=True))


def use_lossy_log_files() -> None:
    """Make the Task SDK open its task's log as a :class:`LossyFile`. For a process that hosts one job."""
    from airflow.sdk import log

    log.init_log_file = _LossyPath


class _LossyPath:
    """Replaces the `Path` of a log file in the Task SDK, which only calls its `open("ab")`."""

    def __init__(self, path: str) -> None:
        self._path = path

    def open(self, mode: str = "ab") -> LossyFile:
        return opened(self._path)


def opened(path: str | Path) -> LossyFile:
    """Return the open file of *path*; it continues the count of an earlier one that this process closed."""
    before = _opened.get(str(path))
    if before is not None and not before.closed:
        return before
    return _opened.setdefault(str(path), LossyFile(path)) if before is None else _reopened(before)


def _reopened(before: LossyFile) -> LossyFile:
    file = _opened[before.name] = LossyFile(before.name)
    file.lost, file._why, file._mid_line = before.lost, before._why, before._mid_line
    return file


_opened: dict[str, LossyFile] = {}
