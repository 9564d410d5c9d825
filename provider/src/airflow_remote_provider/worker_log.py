"""A worker's own log as people read it: lines, filtered, from a position on. What a worker sent may be anything."""

from __future__ import annotations

import json
from collections import deque
from dataclasses import dataclass
from typing import NamedTuple

from airflow_remote_provider.ledger.presentable import presentable
from airflow_remote_provider.logstores.own import OwnLogStore

PIECE = 512 * 1024
"""Bytes of one look, unless something is searched for."""
MOST_LINES = 1000
"""Of one answer of the API."""
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
    store: OwnLogStore, worker_id: str, *, most: int, after: int | None = None, contains: str = "", level: str = "debug"
) -> LogLines:
    """Return the lines behind the position *after*, the first *most* of them; without it, the last *most*.

    Only those that contain *contains* (in any case) and are of *level* or worse. Where the log no longer reaches back to *after*,
    a line says so.
    """
    searches = bool(contains) or level != "debug"
    begin = 0 if after is None and searches else after
    piece = store.read(worker_id, begin, 1 << 62 if searches and after is None else PIECE)
    body, position = piece.body, piece.begin
    if position > 0 and position != begin:
        cut = body.find(b"\n") + 1  # the first line is half a line
        body, position = body[cut:], position + cut
    half = 0
    if not body.endswith(b"\n"):
        whole = body.rfind(b"\n") + 1
        # A line is written in one go; one that fills a whole piece is nobody's, and must not stand in the way for ever.
        if whole or len(body) < PIECE:
            half, body = len(body) - whole, body[:whole]
    found: deque[_Said] = deque(maxlen=most)
    for raw in body.splitlines(keepends=True):
        position += len(raw)
        said = _said(raw)
        if said is None or not said.is_wanted(contains.lower(), level):
            continue
        found.append(said)
        if after is not None and len(found) == most:
            break
    items = [said.shown() for said in found]
    if after and after < piece.begin:
        items.insert(
            0, LogLine("", "warning", "", [f"{piece.begin - after} bytes of this log were dropped before they were read"])
        )
    return LogLines(items, position, position + half < piece.end)


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
