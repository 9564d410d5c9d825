"""Logs as files under `[logging] base_log_folder`, where Airflow's UI reads them live."""

from __future__ import annotations

import errno
import fcntl
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from airflow_remote_provider import compat
from airflow_remote_provider.stores import OutOfStep, Unstorable, always


class FileLogStore:
    """Needs one disk for all API servers (and so for all that read logs), as Airflow's own local logs do.

    *most* bounds one file: a task that prints without end, or a hostile worker, must not fill the disk.
    """

    def __init__(self, most: int = 1 << 62) -> None:
        self._most = most

    def create(self, path: str) -> None:
        with _names_that_fit(path):
            compat.log_file(path).open("ab").close()

    def size(self, path: str) -> int:
        try:
            with _names_that_fit(path), (compat.base_log_folder() / path).open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_SH)  # not while an append that was confirmed before is still to be written
                return os.fstat(file.fileno()).st_size
        except FileNotFoundError:
            return 0

    def append(self, path: str, base: int, offset: int, body: bytes, *, confirm: Callable[[], None] = always) -> int:
        with _names_that_fit(path):
            place = compat.log_file(path)
        with place.open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # another API process may serve the same worker's repeat
            confirm()
            held = os.fstat(file.fileno()).st_size - base
            if held < 0:  # somebody deleted what came before this lease; keep its place, or nothing would ever join again
                file.truncate(base - 1)
                file.write(b"\n")
                held = 0
            room = self._most - base - held
            if room < 0:  # it has its mark, or the limit was lowered
                raise Unstorable(_FULL.format(most=self._most))
            if offset == held and len(body) > room:
                file.write(body[:room] + _mark(self._most))
                raise Unstorable(_FULL.format(most=self._most))
            if offset == held:
                file.write(body)
                return held + len(body)
            if offset + len(body) <= held:
                return held
            raise OutOfStep(held)


_FULL = "central keeps no more than {most} bytes of one log ([remote] log_bytes_per_job); the rest is on the worker"


def _mark(most: int) -> bytes:
    """What a log that was cut ends with, as a line of Airflow's."""
    return b"\n" + json.dumps({"level": "error", "event": _FULL.format(most=most)}).encode() + b"\n"


@contextmanager
def _names_that_fit(path: str) -> Iterator[None]:
    """Airflow allows ids of 250 characters and its template puts `dag_id=` before them; most file systems end at 255 bytes."""
    try:
        yield
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        longest = max(len(os.fsencode(part)) for part in path.split("/"))
        raise Unstorable(
            f"central can't keep this log: a part of its path has {longest} bytes, more than the file system allows; "
            "shorten the ids, or [logging] log_filename_template"
        ) from error
