"""Reads the log of a worker for users: lines, filtered, from a position on. A worker can send any bytes."""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

from airflow_remote_provider.ledger.presentable import presentable
from airflow_remote_provider.stores.worker_logs import Piece, WorkerLogStore

PIECE = 512 * 1024
"""Bytes that one call reads without a search."""
SEARCHED = 8 * 1024 * 1024
"""Bytes at the end of a log that one search looks through: twice the default of `[remote] worker_log_bytes`."""
MOST_LINES = 1000
"""Most lines of one reply of the API."""
LOOKED_AT = 50_000
"""Most lines that one call examines. A log of 4 MB has about 20,000; one of almost empty lines may have a million."""
LOOK_S = 2.0
"""How long one call may take."""
DOWNLOADED_LINES = 100_000
"""Most lines of one download."""
LINES_AT_ONCE = 100
PAUSE_S = 0.002
"""Pause after so many lines, about a millisecond of work, so that the other threads of this process can answer the workers."""
LONGEST_EVENT = 10_000
LONGEST_NAME = 200
LEVELS = ("debug", "info", "warning", "error", "critical")


@dataclass(frozen=True)
class LogLine:
    """One line. A line that the worker's logging did not write has only a text."""

    at: str
    """Time by the worker's clock, ISO 8601."""
    level: str
    logger: str
    text: list[str]
    """The line, and the lines of its traceback."""


@dataclass(frozen=True)
class LogLines:
    items: list[LogLine]
    """Oldest first."""
    next: int
    """The position to pass as `after`, for later lines."""
    more: bool
    """Whether later lines exist already. An incomplete line does not count."""


def read_lines(
    store: WorkerLogStore, worker_id: str, *, most: int, after: int | None = None, contains: str = "", level: str = "debug"
) -> LogLines:
    """Return the first *most* lines after the position *after*, or the last *most* lines if it is None.

    Only lines that contain *contains* (in any case) and have *level* or a more severe one. An extra line says so if the log no
    longer reaches back to *after*, or if a search from the end stopped at the limits of one call. A call from *after* on that
    stops at these limits sets `more`, and continues at `next`.
    """
    searches = bool(contains) or level != "debug"
    piece = store.read(worker_id, after, SEARCHED if searches and after is None else PIECE)
    body, begin = _whole_lines(piece, may_begin_at=after)
    half = piece.begin + len(piece.body) - begin - len(body)
    limits = _Limits(most)
    found: deque[_RawLine] = deque()
    position = begin
    if after is None:
        for raw in limits.apply(_backwards(body)):
            if (line := _parse_line(raw)) is not None and line.is_wanted(contains.lower(), level):
                found.appendleft(line)
                limits.found += 1
        position += len(body)
    else:
        for raw in limits.apply(_forwards(body)):
            position += len(raw)
            if (line := _parse_line(raw)) is not None and line.is_wanted(contains.lower(), level):
                found.append(line)
                limits.found += 1
    items = [line.shown() for line in found]
    if after and after < piece.begin:
        items.insert(0, _remark(f"{piece.begin - after} bytes of this log were dropped before they were read"))
    if after is None and searches and (limits.was_cut or (begin > 0 and len(piece.body) >= SEARCHED)):
        items.insert(
            0, _remark(f"only the newest {limits.lines} lines of this log were searched; download it to search all of it")
        )
    return LogLines(items, position, position + half < piece.end)


def as_download(store: WorkerLogStore, worker_id: str) -> Iterator[bytes]:
    """Yield the log as a text file, a few lines at a time. Of a log with too many lines, yield the newest ones."""
    piece = store.read(worker_id, 0, 1 << 62)  # a snapshot, so that the download ends
    body, _ = _whole_lines(piece, may_begin_at=0)
    begin = sum(len(raw) for raw in islice(_backwards(body), DOWNLOADED_LINES))
    if begin < len(body):
        yield f"only the newest {DOWNLOADED_LINES} lines of this log are included\n".encode()
    lines = _forwards(body[len(body) - begin :])
    while some := list(islice(lines, LINES_AT_ONCE)):
        yield "".join(f"{as_text(line.shown())}\n" for raw in some if (line := _parse_line(raw)) is not None).encode()
        time.sleep(PAUSE_S)


def _whole_lines(piece: Piece, *, may_begin_at: int | None) -> tuple[bytes, int]:
    """Return the whole lines of a piece, and the position of the first. *may_begin_at* is known to be the beginning of a line."""
    body, begin = piece.body, piece.begin
    if begin > 0 and begin != may_begin_at:
        cut = body.find(b"\n") + 1  # the first line is half a line
        body, begin = body[cut:], begin + cut
    if not body.endswith(b"\n"):
        whole = body.rfind(b"\n") + 1
        # The worker writes a line at once. One that fills a whole piece is not a line of its log, and must not block reading.
        if whole or len(body) < PIECE:
            body = body[:whole]
    return body, begin


def _forwards(body: bytes) -> Iterator[bytes]:
    begin = 0
    while begin < len(body):
        end = body.find(b"\n", begin) + 1 or len(body)
        yield body[begin:end]
        begin = end


def _backwards(body: bytes) -> Iterator[bytes]:
    end = len(body)
    while end > 0:
        begin = body.rfind(b"\n", 0, end - 1) + 1
        yield body[begin:end]
        end = begin


class _Limits:
    """The limits of one call: lines found, lines examined, and time."""

    def __init__(self, most: int) -> None:
        self.found = 0
        self.lines = 0
        self.was_cut = False
        """Whether it ended before all lines were examined and before enough were found."""
        self._most = most
        self._until = time.monotonic() + LOOK_S

    def apply(self, lines: Iterator[bytes]) -> Iterator[bytes]:
        for raw in lines:
            if self.found >= self._most:
                return
            if self.lines >= LOOKED_AT or time.monotonic() >= self._until:
                self.was_cut = True
                return
            self.lines += 1
            if self.lines % LINES_AT_ONCE == 0:
                time.sleep(PAUSE_S)
            yield raw


def _remark(text: str) -> LogLine:
    return LogLine("", "warning", "", [text])


class _RawLine(NamedTuple):
    """A line as it arrived. Most lines are searched but not shown, and making a line presentable is the most expensive step."""

    at: str
    level: str
    logger: str
    text: str

    def is_wanted(self, contains: str, level: str) -> bool:
        if LEVELS.index(self.level) < LEVELS.index(level):
            return False
        return contains in self.text.lower() or contains in self.logger.lower()

    def shown(self) -> LogLine:
        cut = self.text if len(self.text) <= LONGEST_EVENT else self.text[: LONGEST_EVENT - 1] + "…"
        return LogLine(
            presentable(self.at, longest=40),
            self.level,
            presentable(self.logger, longest=LONGEST_NAME),
            [presentable(line, longest=LONGEST_EVENT) for line in cut.splitlines()] or [""],
        )


def _parse_line(raw: bytes) -> _RawLine | None:
    text = raw.decode(errors="replace").strip()
    if not text:
        return None
    try:
        fields = json.loads(text)
        event = fields["event"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return _RawLine("", "info", "", text)
    level = fields.get("level")
    return _RawLine(
        str(fields.get("timestamp", "")), level if level in LEVELS else "info", str(fields.get("logger", "")), str(event)
    )


def as_text(line: LogLine) -> str:
    """Return the line as text for a file or a terminal."""
    head = " ".join(part for part in (line.at, line.level.upper(), f"{line.logger}:" if line.logger else "") if part)
    return "\n    ".join([f"{head} {line.text[0]}".strip(), *line.text[1:]])
