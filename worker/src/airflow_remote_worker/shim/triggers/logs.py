"""The logs of the triggers of one host: assigns each line to the trigger that wrote it, and batches lines for the daemon.

Lines are kept in memory until the daemon has stored them. Memory is bounded: lines that do not fit are dropped, and a line in the
log says how many.
"""

from __future__ import annotations

import io
import json
import os
import threading
from collections import deque
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

from airflow_remote_worker.local import frames
from airflow_remote_worker.shim.compat import redact
from airflow_remote_worker.shim.triggers.current import current

MOST_OF_ONE = 1 << 20
"""Pending bytes of one trigger: about 5,000 lines."""
MOST = 16 << 20
"""Pending bytes in total; the memory budget of a host with 1,000 triggers is 60 MB."""
LONGEST_LINE = 128 * 1024
"""Bytes. Central accepts pieces of 1 MiB, and a line must not be cut."""
BATCH = 256 * 1024
"""Bytes after which a frame to the daemon takes no further trigger's lines."""
MOST_BATCHES_UNDERWAY = 8


class LogBook:
    """Lines that the daemon has not stored yet. Thread-safe: triggers log from threads as well."""

    def __init__(self) -> None:
        self.notify: Callable[[], None] = lambda: None
        """Called, in any thread, when there is something to send."""
        self._lock = threading.Lock()
        self._waiting: dict[frames.LeaseName, list[bytes]] = {}
        self._sizes: dict[frames.LeaseName, int] = {}
        self._lost: dict[frames.LeaseName, int] = {}
        self._size = 0
        self._open: dict[frames.LeaseName, None] = {}
        """A set in order: the triggers whose log is not complete at the daemon."""
        self._ended: dict[frames.LeaseName, None] = {}
        """A set in order: those among them whose end is not sent yet."""
        self._sent: deque[frames.Lines] = deque()
        self._number = 0

    def begin(self, lease: frames.LeaseName) -> None:
        """Begin the log of a trigger. It may be the second start under this lease."""
        with self._lock:
            self._open[lease] = None
            self._ended.pop(lease, None)

    def end(self, lease: frames.LeaseName) -> None:
        """Complete the log of a trigger whose code has ended: the daemon learns with the last line that it is the last one."""
        with self._lock:
            if lease not in self._sizes and (lost := self._lost.pop(lease, 0)):
                self._keep_gap(lease, lost)
            self._ended[lease] = None
        self.notify()

    def open(self) -> list[frames.LeaseName]:
        """Return the triggers whose log is not complete at the daemon."""
        with self._lock:
            return list(self._open)

    def add(self, lease: frames.LeaseName, line: bytes) -> None:
        """Keep *line*, which ends with a newline."""
        if len(line) > LONGEST_LINE:
            line = _shortened(line)
        with self._lock:
            size = self._sizes.get(lease, 0)
            if size + len(line) > MOST_OF_ONE or self._size + len(line) > MOST:
                self._lost[lease] = self._lost.get(lease, 0) + 1
                return
            if lost := self._lost.pop(lease, 0):
                line = _gap(lost) + line
            self._waiting.setdefault(lease, []).append(line)
            self._sizes[lease] = size + len(line)
            self._size += len(line)
        self.notify()

    def add_event(self, lease: frames.LeaseName, event: str, *, level: str = "info") -> None:
        """Add a log line of the host's own about the trigger."""
        self.add(lease, format_line(event, level=level))

    def next(self) -> frames.Lines | None:
        """Return the next batch to send; None if nothing is pending, or too many batches are unacknowledged."""
        with self._lock:
            if not (self._waiting or self._ended) or len(self._sent) >= MOST_BATCHES_UNDERWAY:
                return None
            size, lines = 0, []
            for lease in list(self._waiting):
                text = b"".join(self._waiting.pop(lease))
                lines.append((lease, text))
                size += len(text)
                if size >= BATCH:
                    break
            # The line about lost lines follows the acknowledgement of those that were kept (`taken`).
            complete = [lease for lease in self._ended if lease not in self._waiting and lease not in self._lost]
            if not lines and not complete:
                return None
            for lease in complete:
                del self._ended[lease]
            self._number += 1
            batch = frames.Lines(self._number, lines, complete)
            self._sent.append(batch)
            return batch

    def taken(self, number: int) -> None:
        """Drop the batches up to *number*, which the daemon has stored."""
        with self._lock:
            while self._sent and self._sent[0].number <= number:
                batch = self._sent.popleft()
                for lease in batch.complete:
                    self._open.pop(lease, None)
                for lease, text in batch.lines:
                    self._size -= len(text)
                    self._sizes[lease] -= len(text)
                    if not self._sizes[lease]:
                        del self._sizes[lease]
                        if lost := self._lost.pop(lease, 0):
                            self._keep_gap(lease, lost)

    def unacknowledged(self) -> list[frames.Lines]:
        """Return the batches that were sent but not acknowledged, for a new connection."""
        with self._lock:
            return list(self._sent)

    def _keep_gap(self, lease: frames.LeaseName, lost: int) -> None:
        line = _gap(lost)
        self._waiting.setdefault(lease, []).append(line)
        self._sizes[lease] = self._sizes.get(lease, 0) + len(line)
        self._size += len(line)


class LineRouter(io.RawIOBase):
    """The stream for the JSON lines of Airflow's logging: writes to the current trigger's log, else to the host's own."""

    def __init__(self, book: LogBook) -> None:
        super().__init__()
        self._book = book

    def write(self, body: Any) -> int:
        line = bytes(body)
        running = current.get()
        if running is None:
            os.write(1, line)
        else:
            self._book.add(running.lease, line if line.endswith(b"\n") else line + b"\n")
        return len(line)

    def writable(self) -> bool:
        return True


class PrintRouter(io.TextIOBase):
    """The stdout or stderr of triggers: whole lines go to the log of the printing trigger, as with the Task SDK's tasks."""

    def __init__(self, book: LogBook, beyond: Any, *, name: str, level: str) -> None:
        """*beyond* is the stream for output outside of any trigger."""
        super().__init__()
        self._book = book
        self._beyond = beyond
        self._name = name
        self._level = level
        self._begun: dict[frames.LeaseName, str] = {}

    def write(self, text: str) -> int:
        running = current.get()
        if running is None:
            self._beyond.write(text)
            return len(text)
        *lines, rest = (self._begun.pop(running.lease, "") + text).split("\n")
        if len(rest) > LONGEST_LINE:
            lines, rest = [*lines, rest], ""
        for line in lines:
            if line:
                self._book.add(running.lease, format_line(line, level=self._level, logger=self._name))
        if rest:
            self._begun[running.lease] = rest
        return len(text)

    def end(self, lease: frames.LeaseName) -> None:
        """Write the unfinished line of a trigger that has ended."""
        if rest := self._begun.pop(lease, ""):
            self._book.add(lease, format_line(rest, level=self._level, logger=self._name))

    def writable(self) -> bool:
        return True

    def flush(self) -> None:
        self._beyond.flush()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return "utf-8"

    @property
    def buffer(self) -> Any:
        return self._beyond.buffer

    def fileno(self) -> int:
        return int(self._beyond.fileno())


def format_line(event: str, *, level: str, logger: str = "airflow_remote_worker.shim") -> bytes:
    """Return a line in the format of the Task SDK, with secrets masked."""
    stamp = datetime.now(tz=timezone.utc).isoformat().replace("+00:00", "Z")
    line = {"timestamp": stamp, "level": level, "event": event, "logger": logger}
    return json.dumps(redact(line)).encode() + b"\n"


def _gap(lost: int) -> bytes:
    event = f"{lost} lines of this log were lost here: the worker's daemon was away, or the trigger logs too fast"
    return format_line(event, level="warning")


def _shortened(line: bytes) -> bytes:
    """Return a JSON line with the beginning of one that is too long."""
    try:
        content = json.loads(line)
        event, level = str(content.get("event", "")), str(content.get("level", "info"))
        logger = str(content.get("logger", ""))[:200]
    except (ValueError, AttributeError):
        event, level, logger = line.decode("utf-8", "replace"), "info", ""
    # A character takes up to 12 bytes in JSON (a surrogate pair), so this always fits.
    cut = event[: LONGEST_LINE // 16]
    return format_line(f"{cut}… (cut: the line had {len(line)} bytes)", level=level, logger=logger)
