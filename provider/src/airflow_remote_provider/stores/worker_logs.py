"""The workers' own logs: two files for each worker below `[logging] base_log_folder`, the newest bytes of what it says of itself.

A worker sends stretches, whose names it chooses; here all is one run of bytes, counted from the first that ever came. Each file
is named by the position of its first byte, so that nothing else has to be right for the others to be. Needs one disk for all API
servers, as task logs do.
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
from airflow_remote_provider.stores import OutOfStep

FOLDER = "remote_workers"
MARKER_BYTES = 256
"""A marker is always as long, so that a new one takes the old one's place in a single write."""


@dataclass(frozen=True)
class Place:
    """Which stretch is being written."""

    stretch: str = ""
    """The worker's name for what it sends now."""
    base: int = 0
    """The position of that stretch's offset 0; below 0 if it came from elsewhere."""


@dataclass(frozen=True)
class Piece:
    """Some of a log."""

    body: bytes
    begin: int
    end: int
    """The position behind the last byte of the log; what follows the piece is there already if its own end is less."""


class WorkerLogStore:
    """Blocking. *most*: bytes kept of one worker's log; the older half goes when they are full."""

    def __init__(self, most: int) -> None:
        self._half = max(1, most // 2)

    def append(self, worker_id: str, stretch: str, offset: int, body: bytes) -> int:
        """Append *body* at *offset* of the stretch; return how many bytes of it are here now. A repeat changes nothing.

        Raises:
            OutOfStep: it doesn't join what is here of the present stretch.
        """
        folder = _folder(worker_id)
        with _marked(folder) as marker:
            end, place = _end(_files(folder)), _read(marker)
            if place.stretch != stretch or end < place.base:  # or somebody deleted the files; it begins where it is
                if not body:
                    return offset
                place = Place(stretch, end - offset)
                _write(marker, place)  # before the bytes: a repeat must find what it repeats
            held = end - place.base
            if offset + len(body) <= held:
                return held
            if offset != held:
                raise OutOfStep(held)
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
        """Return up to *most* bytes from the position *begin* on, or from the oldest that is here; None: the last *most*.

        Takes no lock: who reads holds up no worker.
        """
        while True:
            try:
                return _piece(_files(_folder(worker_id)), begin, most)
            except FileNotFoundError:
                continue  # the older half went meanwhile

    def worker_ids(self) -> set[str]:
        """Return whose logs are here."""
        root = compat.base_log_folder() / FOLDER
        return {path.name for path in root.iterdir()} if root.exists() else set()

    def remove(self, worker_ids: Collection[str]) -> None:
        """Remove what is here of these workers."""
        for worker_id in worker_ids:
            shutil.rmtree(_folder(worker_id), ignore_errors=True)


@dataclass(frozen=True)
class _File:
    path: Path
    begin: int
    size: int


def _files(folder: Path) -> list[_File]:
    """Return the files, the oldest first."""
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
            begin = max(begin, file.begin)  # somebody may have cut the file before: no reader waits in a gap
        inside = begin + len(body) - file.begin
        if len(body) < most and 0 <= inside < file.size:
            with file.path.open("rb") as opened:
                opened.seek(inside)
                body += opened.read(min(most - len(body), file.size - inside))
    return Piece(body, begin, end)


def _folder(worker_id: str) -> Path:
    """*worker_id* is central's own (a UUID), never a worker's word."""
    return compat.base_log_folder() / FOLDER / worker_id


@contextmanager
def _marked(folder: Path) -> Iterator[int]:
    """Open and lock the marker: another API process may serve the same worker's repeat."""
    folder.mkdir(parents=True, exist_ok=True)
    marker = os.open(folder / "place.json", os.O_RDWR | os.O_CREAT, 0o660)
    try:
        fcntl.flock(marker, fcntl.LOCK_EX)
        yield marker
    finally:
        os.close(marker)


def _read(marker: int) -> Place:
    """Return what is noted; if that is nothing (damaged, deleted), the next stretch begins where the files end."""
    try:
        return Place(**json.loads(os.pread(marker, MARKER_BYTES, 0)))
    except (ValueError, TypeError):
        return Place()


def _write(marker: int, place: Place) -> None:
    os.pwrite(marker, json.dumps(asdict(place)).encode().ljust(MARKER_BYTES), 0)
