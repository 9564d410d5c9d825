"""The worker log on disk: JSON lines in files of limited size, kept until central has them or the size limit is reached.

:mod:`..loops.ship_worker_log` sends them.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import logging
import os
import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

MOST_FILES = 4
FILE_BYTES = 1_000_000
"""The size of a finished file. With 4 files, up to 4 MB wait while central can't be reached."""
HTTP_LOGGERS = ("httpx", "httpcore")
"""These loggers log every request. Sending such a line would cause the next one."""
LONGEST_EVENT = 8_000
"""In characters of one line, traceback included."""


class WorkerLog(logging.Handler):
    """Writes each record at once. If the disk is full, lines are lost, and a later line says how many."""

    def __init__(self, directory: Path) -> None:
        """*directory* is created if it is missing; its newest file is continued."""
        super().__init__()
        self.on_line: Callable[[], None] = lambda: None
        """Called after each new line, in the thread that logs."""
        self._directory = directory
        with contextlib.suppress(OSError):  # a full disk: lines are lost, but jobs are still supervised
            directory.mkdir(mode=0o700, exist_ok=True)
        present = self.files()
        self._path = present[-1] if present else self._new_path()
        self._is_cut = not _ends_with_newline(self._path)
        """The last line is incomplete, after a power cut or on a full disk; the next line must not be appended to it."""
        self._lost_lines = 0

    @contextlib.contextmanager
    def attached(self) -> Iterator[None]:
        """Receive the log records of this process inside this context."""
        logging.getLogger().addHandler(self)
        try:
            yield
        finally:
            logging.getLogger().removeHandler(self)

    def files(self) -> list[Path]:
        """Return the files, the oldest first; the last one is being written, the others are complete."""
        return sorted(self._directory.glob("*.log"))

    def rename(self, path: Path) -> None:
        """Give a file a new name in the same place of the order: it becomes a new stretch, of which central has nothing."""
        self.acquire()
        try:
            renamed = self._named(path.stem.partition("-")[0])
            with contextlib.suppress(FileNotFoundError):
                path.rename(renamed)
            if path == self._path:
                self._path = renamed
        finally:
            self.release()

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno < logging.WARNING and record.name.split(".")[0] in HTTP_LOGGERS:
            return
        try:
            self._write(self._line(at=record.created, level=record.levelname, logger=record.name, event=self._event(record)))
        except OSError:
            self._lost_lines += 1
        except Exception:
            self.handleError(record)
        else:
            self.on_line()

    def _write(self, line: bytes) -> None:
        if _size(self._path) + len(line) > FILE_BYTES:
            self._path = self._new_path()
            self._make_room()
        if self._lost_lines:
            line = self._warning(f"{self._lost_lines} lines of this log were lost: the disk was full or failed") + line
        if self._is_cut:
            line = b"\n" + line
        fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            written = os.write(fd, line)
        finally:
            os.close(fd)
        self._is_cut = written < len(line)
        if self._is_cut:
            raise OSError(errno.ENOSPC, "only a part of the line was written", str(self._path))
        self._lost_lines = 0

    def _make_room(self) -> None:
        for oldest in self.files()[: -(MOST_FILES - 1)]:
            size = _size(oldest)
            oldest.unlink(missing_ok=True)
            self._write(self._warning(f"up to {size} bytes of this log were dropped: central could not receive them in time"))

    def _warning(self, event: str) -> bytes:
        return self._line(at=time.time(), level="WARNING", logger=__name__, event=event)

    def _new_path(self) -> Path:
        # Names sort by time. Each file gets a new name even if the clock was set back, or two daemons start at the same time.
        newest = max((int(path.stem.split("-")[0]) for path in self.files() if path.stem.split("-")[0].isdigit()), default=0)
        return self._named(f"{max(time.time_ns(), newest + 1):020d}")

    def _named(self, when: str) -> Path:
        return self._directory / f"{when}-{secrets.token_hex(4)}.log"

    @staticmethod
    def _line(*, at: float, level: str, logger: str, event: str) -> bytes:
        stamp = datetime.datetime.fromtimestamp(at, datetime.timezone.utc).isoformat(timespec="milliseconds")
        shown = event if len(event) <= LONGEST_EVENT else event[: LONGEST_EVENT - 1] + "…"
        line = {"timestamp": stamp.replace("+00:00", "Z"), "level": level.lower(), "logger": logger, "event": shown}
        return msgspec.json.encode(line) + b"\n"

    @staticmethod
    def _event(record: logging.LogRecord) -> str:
        text = record.getMessage()
        if record.exc_info:
            text += "\n" + logging.Formatter().formatException(record.exc_info)
        return text.encode(errors="replace").decode()


def _ends_with_newline(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            file.seek(0, os.SEEK_END)
            if file.tell():
                file.seek(-1, os.SEEK_CUR)
            return file.read() in (b"", b"\n")
    except FileNotFoundError:
        return True


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
