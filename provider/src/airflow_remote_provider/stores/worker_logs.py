"""Stores the logs of workers: the newest bytes of each, in two files below `[logging] base_log_folder`.

A worker sends stretches, whose names it chooses (ADR 0019). Here they form one sequence of bytes, counted from the first byte
ever received. Each file is named by the position of its first byte, so that it does not depend on any other file. Needs one disk
that all API servers share, as task logs do.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from airflow_remote_provider import compat
from airflow_remote_provider.stores import WrongOffset

FOLDER = "remote_workers"
MARKER_BYTES = 256
"""Fixed size of a marker, so that a single write replaces the old one."""


@dataclass(frozen=True)
class Place:
    """The stretch that is being written."""

    stretch: str = ""
    """The worker's name of the present stretch."""
    base: int = 0
    """The position of offset 0 of that stretch; negative if its beginning is not here."""


@dataclass(frozen=True)
class Piece:
    """A part of a log."""

    body: bytes
    begin: int
    end: int
    """The position after the last byte of the log; more bytes exist if the piece ends before it."""


class WorkerLogStore:
    """Blocking. *most* is the number of bytes kept of one worker's log; the older half is deleted when it is full."""

    def __init__(self, most: int) -> None:
        self._half = max(1, most // 2)

    def append(self, worker_id: str, *, stretch: str, offset: int, body: bytes) -> int:
        """Append *body* at *offset* of the stretch; return how many bytes of it are stored now. A repeat changes nothing.

        Raises:
            WrongOffset: *body* doesn't continue the stored bytes of the present stretch.
        """
        folder = _folder(worker_id)
        with _marked(folder) as marker:
            end, place = _end(_files(folder)), _read(marker)
            if place.stretch != stretch or end < place.base:  # new, or the files were deleted: it begins at *offset*
                if not body:
                    return offset
                place = Place(stretch, end - offset)
                _write(marker, place)  # before the bytes, so that a repeat is recognised
            held = end - place.base
            if offset + len(body) <= held:
                return held
            if offset != held:
                raise WrongOffset(held)
            for begin in range(0, len(body), self._half):
                self._add(folder, body[begin : begin + self._half])
            return held + len(body)

    def _add(self, folder: Path, some: bytes) -> None:
        files = _files(folder)
        if files and files[-1].size + len(some) <= self._half:
            path = files[-1].path
        else:
            for older in files[:-1]:
                older.path.unlink(missing_ok=True)
            path = folder / f"{_end(files):020d}.log"
        with path.open("ab") as file:
            file.write(some)

    def read(self, worker_id: str, begin: int | None, most: int) -> Piece:
        """Return up to *most* bytes from the position *begin* on, or from the oldest stored byte; None: the last *most* bytes.

        Takes no lock, so reading does not delay a worker.
        """
        while True:
            try:
                return _piece(_files(_folder(worker_id)), begin, most)
            except FileNotFoundError:
                continue  # the older half was deleted meanwhile

    def worker_ids(self) -> set[str]:
        """Return the ids of the workers that have logs here."""
        root = compat.base_log_folder() / FOLDER
        return {path.name for path in root.iterdir()} if root.exists() else set()

    def remove(self, worker_ids: Collection[str]) -> None:
        """Delete the logs of these workers."""
        for worker_id in worker_ids:
            shutil.rmtree(_folder(worker_id), ignore_errors=True)


@dataclass(frozen=True)
class _File:
    path: Path
    begin: int
    size: int


def _files(folder: Path) -> list[_File]:
    """Return the files, oldest first."""
    paths = sorted(path for path in folder.glob("*.log") if path.stem.isdecimal())
    return [_File(path, int(path.stem), path.stat().st_size) for path in paths]


def _end(files: list[_File]) -> int:
    return files[-1].begin + files[-1].size if files else 0


def _piece(files: list[_File], begin: int | None, most: int) -> Piece:
    end = _end(files)
    begin = end - most if begin is None else begin
    begin = min(max(begin, files[0].begin if files else 0), end)
    most = min(most, end - begin)
    body = b""
    for file in files:
        if not body:
            begin = max(begin, file.begin)  # the file before may have been truncated: skip the gap
        inside = begin + len(body) - file.begin
        if len(body) < most and 0 <= inside < file.size:
            with file.path.open("rb") as opened:
                opened.seek(inside)
                body += opened.read(min(most - len(body), file.size - inside))
    return Piece(body, begin, end)


def _folder(worker_id: str) -> Path:
    """Return the folder of a worker. *worker_id* is a UUID made by central, never text from a worker."""
    return compat.base_log_folder() / FOLDER / worker_id


@contextmanager
def _marked(folder: Path) -> Iterator[int]:
    """Open and lock the marker: another API process may handle a repeat of the same call."""
    folder.mkdir(parents=True, exist_ok=True)
    marker = os.open(folder / "place.json", os.O_RDWR | os.O_CREAT, 0o660)
    try:
        fcntl.flock(marker, fcntl.LOCK_EX)
        yield marker
    finally:
        os.close(marker)


def _read(marker: int) -> Place:
    """Return the stored place. If it is damaged or deleted, the next stretch begins where the files end."""
    try:
        return Place(**json.loads(os.pread(marker, MARKER_BYTES, 0)))
    except (ValueError, TypeError):
        return Place()


def _write(marker: int, place: Place) -> None:
    os.pwrite(marker, json.dumps(asdict(place)).encode().ljust(MARKER_BYTES), 0)
