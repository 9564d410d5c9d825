"""The daemon's own log on disk: JSON lines in files of bounded size, kept until central has them or there is no room left.

Sending them is :mod:`.loops.ship_own`'s.
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
"""After so many a file is finished: up to 4 MB wait for a central that is away."""
ABOUT_REQUESTS = ("httpx", "httpcore")
"""What they say of each request would be something to send, by a request."""
LONGEST_EVENT = 8_000
"""Characters of one line, traceback included."""


class WorkerLog(logging.Handler):
    """Writes each record at once. A disk that takes nothing loses lines, and the log says so later."""

    def __init__(self, directory: Path) -> None:
        """*directory* is made if it is missing; the newest file in it goes on."""
        super().__init__()
        self.on_line: Callable[[], None] = lambda: None
        """Called, from whatever thread logs, when there is something new."""
        self._directory = directory
        with contextlib.suppress(OSError):  # a full disk: lines are lost, and jobs looked after all the same
            directory.mkdir(mode=0o700, exist_ok=True)
        present = self.files()
        self._path = present[-1] if present else self._new_path()
        self._torn = not _ends_whole(self._path)
        """The last line is half one, as after a power cut or on a full disk; the next must not be joined to it."""
        self._lost = 0

    @contextlib.contextmanager
    def heard(self) -> Iterator[None]:
        """Write down what this process logs meanwhile."""
        logging.getLogger().addHandler(self)
        try:
            yield
        finally:
            logging.getLogger().removeHandler(self)

    def files(self) -> list[Path]:
        """Return the files, the oldest first; the last is being written, the others are finished."""
        return sorted(self._directory.glob("*.log"))

    def rename(self, path: Path) -> None:
        """Give a file another name, at its place in the order: it is a new stretch, that central has nothing of."""
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
        if record.levelno < logging.WARNING and record.name.split(".")[0] in ABOUT_REQUESTS:
            return
        try:
            self._write(self._line(record.created, record.levelname, record.name, self._event(record)))
        except OSError:
            self._lost += 1
        except Exception:
            self.handleError(record)
        else:
            self.on_line()

    def _write(self, line: bytes) -> None:
        if _size(self._path) + len(line) > FILE_BYTES:
            self._path = self._new_path()
            self._make_room()
        if self._lost:
            line = self._told(f"{self._lost} lines of this log were lost: the disk took nothing") + line
        if self._torn:
            line = b"\n" + line
        fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            written = os.write(fd, line)
        finally:
            os.close(fd)
        self._torn = written < len(line)
        if self._torn:
            raise OSError(errno.ENOSPC, "the disk took half a line", str(self._path))
        self._lost = 0

    def _make_room(self) -> None:
        for oldest in self.files()[: -(MOST_FILES - 1)]:
            size = _size(oldest)
            oldest.unlink(missing_ok=True)
            self._write(
                self._told(f"up to {size} bytes of this log were dropped before central had them: it took none for too long")
            )

    def _told(self, event: str) -> bytes:
        return self._line(time.time(), "WARNING", __name__, event)

    def _new_path(self) -> Path:
        # Sorts by time; two daemons one after the other, or a clock that was set back, must not meet in one file.
        newest = max((int(path.stem.split("-")[0]) for path in self.files() if path.stem.split("-")[0].isdigit()), default=0)
        return self._named(f"{max(time.time_ns(), newest + 1):020d}")

    def _named(self, when: str) -> Path:
        return self._directory / f"{when}-{secrets.token_hex(4)}.log"

    @staticmethod
    def _line(at: float, level: str, logger: str, event: str) -> bytes:
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


def _ends_whole(path: Path) -> bool:
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
