"""The writing end of a job's outbox (`local/outbox_file.py`)."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from airflow_remote_worker.local import frames
from airflow_remote_worker.local.outbox_file import NAME, delivered, record_of

LEASE_FILES = ("offer.json", "job.json")
"""Written by the daemon without a sync: as long as the outbox is empty, a job may be lost with the machine."""
MOST = 64 * 1024 * 1024
"""Bytes per job. Sixteen tasks that push for hours must not fill a small disk. Further writes wait for central, as reads do."""


class Full(Exception):
    """The outbox is full; the call must wait for central."""


class OutboxWriter:
    """Appends calls to the outbox of the job in *directory*; *most* is its limit in bytes."""

    def __init__(self, directory: Path, *, most: int = MOST) -> None:
        self._directory = directory
        self._path = directory / NAME
        self._most = most

    @property
    def waits(self) -> bool:
        """Whether the outbox holds a write that the daemon has not delivered."""
        try:
            size = self._path.stat().st_size
        except FileNotFoundError:
            return False
        return size > delivered(self._directory)

    def append(self, call: frames.Call) -> None:
        """Append *call* durably.

        Raises:
            Full: the outbox would exceed its limit.
            OSError: the disk can't store it; nothing has been added.
        """
        record = record_of(call)
        fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            size = os.fstat(fd).st_size
            if size + len(record) > self._most:
                raise Full(f"{self._path} has {size} bytes; {len(record)} more would exceed its limit of {self._most}")
            try:
                written = 0
                while written < len(record):
                    written += os.write(fd, record[written:])
                os.fsync(fd)
                if size == 0:
                    self._anchor()
            except OSError:
                with contextlib.suppress(OSError):  # the reader stops at an incomplete record
                    os.ftruncate(fd, size)
                raise
        finally:
            os.close(fd)

    def _anchor(self) -> None:
        """Sync the files and directories by which the next daemon knows whose writes these are."""
        for path in (*(self._directory / name for name in LEASE_FILES), self._directory, self._directory.parent):
            with contextlib.suppress(FileNotFoundError):
                fd = os.open(path, os.O_RDONLY)
                try:
                    os.fsync(fd)
                finally:
                    os.close(fd)
