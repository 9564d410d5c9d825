"""A worker's own log as people read it: lines, filtered, from a position on. What a worker sent may be anything."""

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
"""Bytes of one look, unless something is searched for."""
SEARCHED = 8 * 1024 * 1024
"""Bytes at the end of a log that one search looks through: twice the default of `[remote] worker_log_bytes`."""
MOST_LINES = 1000
"""Of one answer of the API."""
LOOKED_AT = 50_000
"""Lines of one look. A log of 4 MB has some 20,000; one of lines that say nothing may have a million."""
LOOK_S = 2.0
"""How long one look may take."""
DOWNLOADED_LINES = 100_000
"""Of one download."""
LINES_AT_ONCE = 100
PAUSE_S = 0.002
"""After so many lines, about a millisecond's work, the other threads of this process go on: they answer the workers."""
LONGEST_EVENT = 10_000
LONGEST_NAME = 200
LEVELS = ("debug", "info", "warning", "error", "critical")


@dataclass(frozen=True)
class LogLine:
    """One line; what is no line of the worker's has only a text."""

    at: str
    """As the worker's clock says, ISO 8601."""
    level: str
    logger: str
    text: list[str]
    """A line, and those of its traceback."""


@dataclass(frozen=True)
class LogLines:
    items: list[LogLine]
    """The oldest first."""
    next: int
    """The position to ask `after`, for what comes later."""
    more: bool
    """Whether later lines are there already; half a line is none yet."""


def read_lines(
    store: WorkerLogStore, worker_id: str, *, most: int, after: int | None = None, contains: str = "", level: str = "debug"
) -> LogLines:
    """Return the lines behind the position *after*, the first *most* of them; without it, the last *most*.

    Only those that contain *contains* (in any case) and are of *level* or worse. Where the log no longer reaches back to
    *after*, a
    line says so; also where a search from the end stopped at the bounds of one look. A look from *after* on that stops there
    has `more`, and goes on from `next`.
    """
    searches = bool(contains) or level != "debug"
    piece = store.read(worker_id, after, SEARCHED if searches and after is None else PIECE)
    body, begin = _whole_lines(piece, may_begin_at=after)
    half = piece.begin + len(piece.body) - begin - len(body)
    look = _Look(most)
    found: deque[_Said] = deque()
    position = begin
    if after is None:
        for raw in look.at(_backwards(body)):
            if (said := _said(raw)) is not None and said.is_wanted(contains.lower(), level):
                found.appendleft(said)
                look.found += 1
        position += len(body)
    else:
        for raw in look.at(_forwards(body)):
            position += len(raw)
            if (said := _said(raw)) is not None and said.is_wanted(contains.lower(), level):
                found.append(said)
                look.found += 1
    items = [said.shown() for said in found]
    if after and after < piece.begin:
        items.insert(0, _remark(f"{piece.begin - after} bytes of this log were dropped before they were read"))
    if after is None and searches and (look.was_cut or (begin > 0 and len(piece.body) >= SEARCHED)):
        items.insert(0, _remark(f"only the newest {look.lines} lines of this log were searched; download it to search all of it"))
    return LogLines(items, position, position + half < piece.end)


def as_download(store: WorkerLogStore, worker_id: str) -> Iterator[bytes]:
    """Yield the log as a text file, some lines at a time; if it has very many lines, the newest of them."""
    piece = store.read(worker_id, 0, 1 << 62)  # what comes later is another download's: this one has an end
    body, _ = _whole_lines(piece, may_begin_at=0)
    begin = sum(len(raw) for raw in islice(_backwards(body), DOWNLOADED_LINES))
    if begin < len(body):
        yield f"only the newest {DOWNLOADED_LINES} lines of this log are here\n".encode()
    lines = _forwards(body[len(body) - begin :])
    while some := list(islice(lines, LINES_AT_ONCE)):
        yield "".join(f"{as_text(said.shown())}\n" for raw in some if (said := _said(raw)) is not None).encode()
        time.sleep(PAUSE_S)


def _whole_lines(piece: Piece, *, may_begin_at: int | None) -> tuple[bytes, int]:
    """Return the whole lines of a piece, and the position of the first; a piece *may begin at* what is a line's beginning."""
    body, begin = piece.body, piece.begin
    if begin > 0 and begin != may_begin_at:
        cut = body.find(b"\n") + 1  # the first line is half a line
        body, begin = body[cut:], begin + cut
    if not body.endswith(b"\n"):
        whole = body.rfind(b"\n") + 1
        # A line is written in one go; one that fills a whole piece is nobody's, and must not stand in the way for ever.
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


class _Look:
    """The bounds of one look: lines that are found, lines that are looked at, time."""

    def __init__(self, most: int) -> None:
        self.found = 0
        self.lines = 0
        self.was_cut = False
        """It ended before all lines were looked at and before enough were found."""
        self._most = most
        self._until = time.monotonic() + LOOK_S

    def at(self, lines: Iterator[bytes]) -> Iterator[bytes]:
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


class _Said(NamedTuple):
    """A line as it came. Most are looked through and never shown, and to make one fit to be shown costs more than all else."""

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


def _said(raw: bytes) -> _Said | None:
    text = raw.decode(errors="replace").strip()
    if not text:
        return None
    try:
        said = json.loads(text)
        event = said["event"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return _Said("", "info", "", text)
    level = said.get("level")
    return _Said(str(said.get("timestamp", "")), level if level in LEVELS else "info", str(said.get("logger", "")), str(event))


def as_text(line: LogLine) -> str:
    """Return the line as a file or a terminal has it."""
    head = " ".join(part for part in (line.at, line.level.upper(), f"{line.logger}:" if line.logger else "") if part)
    return "\n    ".join([f"{head} {line.text[0]}".strip(), *line.text[1:]])
