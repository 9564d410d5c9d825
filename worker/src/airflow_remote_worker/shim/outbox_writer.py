"""The writing end of a job's outbox (`local/outbox_file.py`)."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from airflow_remote_worker.local import frames
from airflow_remote_worker.local.outbox_file import NAME, delivered, record_of

LEASE_FILES = ("offer.json", "job.json")
"""Written by the daemon, which doesn't wait for the disk: until something is owed, a job lost with the machine is just lost."""
MOST = 64 * 1024 * 1024
"""Bytes per job. Sixteen tasks that push for hours must not fill a small disk; beyond it writes wait for central, as reads do."""


class Full(Exception):
    """The outbox takes no more; the call must wait for central."""


class OutboxWriter:
    """Appends the calls of the job in *directory*; *most* is its bound in bytes."""

    def __init__(self, directory: Path, *, most: int = MOST) -> None:
        self._directory = directory
        self._path = directory / NAME
        self._most = most

    @property
    def waits(self) -> bool:
        """Whether something is in it that the daemon has not delivered."""
        try:
            size = self._path.stat().st_size
        except FileNotFoundError:
            return False
        return size > delivered(self._directory)

    def append(self, call: frames.Call) -> None:
        """Keep *call*; on return it survives a power cut.

        Raises:
            Full: it would grow beyond its bound.
            OSError: the disk won't take it; nothing has been added.
        """
        record = record_of(call)
        fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            size = os.fstat(fd).st_size
            if size + len(record) > self._most:
                raise Full(f"{self._path} holds {size} bytes; {len(record)} more would pass its bound of {self._most}")
            try:
                written = 0
                while written < len(record):
                    written += os.write(fd, record[written:])
                os.fsync(fd)
                if size == 0:
                    self._anchor()
            except OSError:
                with contextlib.suppress(OSError):  # what can't be cut off is torn, and the reader stops there
                    os.ftruncate(fd, size)
                raise
        finally:
            os.close(fd)

    def _anchor(self) -> None:
        """Let all survive a power cut without which the next daemon would not know whose writes these are."""
        for path in (*(self._directory / name for name in LEASE_FILES), self._directory, self._directory.parent):
            with contextlib.suppress(FileNotFoundError):
                fd = os.open(path, os.O_RDONLY)
                try:
                    os.fsync(fd)
                finally:
                    os.close(fd)
