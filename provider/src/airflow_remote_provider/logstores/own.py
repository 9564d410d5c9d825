"""The workers' own logs: two files for each worker below `[logging] base_log_folder`, the newest bytes of what it says of itself.

A worker sends stretches, whose names it chooses; here all is one run of bytes, counted from the first that ever came. Needs one
disk for all API servers, as task logs do.
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
from typing import BinaryIO

from airflow_remote_provider import compat
from airflow_remote_provider.logstores import OutOfStep

FOLDER = "remote_workers"


@dataclass(frozen=True)
class Place:
    """Where one worker's log stands; positions count from the first byte that ever came."""

    stretch: str = ""
    """The worker's name for what it sends now."""
    base: int = 0
    """The position of that stretch's offset 0; below 0 if it came from elsewhere."""
    dropped: int = 0
    """The position of the oldest byte that is still here."""


@dataclass(frozen=True)
class Piece:
    """Some of a log."""

    body: bytes
    begin: int
    end: int
    """The position behind the last byte of the log; what follows the piece is there already if its own end is less."""


class OwnLogStore:
    """Blocking. *most*: bytes kept of one worker's log; the older half goes when they are full."""

    def __init__(self, most: int) -> None:
        self._half = max(1, most // 2)

    def append(self, worker_id: str, stretch: str, offset: int, body: bytes) -> int:
        """Append *body* at *offset* of the stretch; return how many bytes of it are here now. A repeat changes nothing.

        Raises:
            OutOfStep: it doesn't join what is here of the present stretch.
        """
        with _locked(_folder(worker_id), fcntl.LOCK_EX) as marker:
            place, files = _read(marker), _Files(_folder(worker_id))
            end = place.dropped + files.size
            if place.stretch != stretch:
                if not body:
                    return offset
                place = Place(stretch, end - offset, place.dropped)
                _write(marker, place)  # before the bytes: a repeat must find what it repeats
            held = end - place.base
            if offset + len(body) <= held:
                return held
            if offset != held:
                raise OutOfStep(held)
            with files.new.open("ab") as file:
                file.write(body)
            if files.new.stat().st_size >= self._half:
                _write(marker, Place(place.stretch, place.base, place.dropped + _size(files.old)))
                files.new.replace(files.old)
            return held + len(body)

    def read(self, worker_id: str, begin: int | None, most: int) -> Piece:
        """Return up to *most* bytes from the position *begin* on, or from the oldest that is here; None: the last *most*."""
        folder = _folder(worker_id)
        if not folder.exists():
            return Piece(b"", 0, 0)
        with _locked(folder, fcntl.LOCK_SH) as marker:
            place, files = _read(marker), _Files(folder)
            end = place.dropped + files.size
            begin = end - most if begin is None else begin
            begin = min(max(begin, place.dropped), end)
            body = b""
            at = begin - place.dropped
            for path in (files.old, files.new):
                size = _size(path)
                if at < size and len(body) < most:
                    with path.open("rb") as file:
                        file.seek(at)
                        body += file.read(min(most - len(body), size - at))
                at = max(0, at - size)
            return Piece(body, begin, end)

    def remove_others(self, worker_ids: Collection[str]) -> int:
        """Remove the logs of all workers but these; return how many."""
        root = compat.base_log_folder() / FOLDER
        others = [path for path in root.iterdir() if path.name not in worker_ids] if root.exists() else []
        for path in others:
            shutil.rmtree(path, ignore_errors=True)
        return len(others)


class _Files:
    def __init__(self, folder: Path) -> None:
        self.new, self.old = folder / "worker.log", folder / "worker.log.1"

    @property
    def size(self) -> int:
        return _size(self.new) + _size(self.old)


def _folder(worker_id: str) -> Path:
    """*worker_id* is central's own (a UUID), never a worker's word."""
    return compat.base_log_folder() / FOLDER / worker_id


@contextmanager
def _locked(folder: Path, how: int) -> Iterator[BinaryIO]:
    """Another API process may serve the same worker's repeat, or somebody who reads."""
    folder.mkdir(parents=True, exist_ok=True)
    fd = os.open(folder / "place.json", os.O_RDWR | os.O_CREAT, 0o660)
    with os.fdopen(fd, "r+b") as marker:
        fcntl.flock(marker, how)
        yield marker


def _read(marker: BinaryIO) -> Place:
    """Return what is noted; if that is nothing (half written, deleted), the next stretch begins where the files end."""
    marker.seek(0)
    try:
        return Place(**json.loads(marker.read()))
    except (ValueError, TypeError):
        return Place()


def _write(marker: BinaryIO, place: Place) -> None:
    marker.seek(0)
    marker.truncate()
    marker.write(json.dumps(asdict(place)).encode())
    marker.flush()


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
