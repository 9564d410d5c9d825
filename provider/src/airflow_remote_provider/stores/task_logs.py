"""Task logs as files under `[logging] base_log_folder`, where Airflow's UI reads them live."""

from __future__ import annotations

import errno
import fcntl
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from airflow_remote_provider import compat
from airflow_remote_provider.stores import Unstorable, WrongOffset, always


class FileLogStore:
    """Needs one disk that all API servers share, as Airflow's own local logs do.

    *most* limits the size of one file: a task that prints without end, or a hostile worker, must not fill the disk.
    """

    def __init__(self, most: int = 1 << 62) -> None:
        self._most = most

    def create(self, path: str) -> None:
        with _refuse_long_names(path):
            compat.log_file(path).open("ab").close()

    def size(self, path: str) -> int:
        try:
            with _refuse_long_names(path), (compat.base_log_folder() / path).open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_SH)  # waits for an append that is confirmed and not written yet
                return os.fstat(file.fileno()).st_size
        except FileNotFoundError:
            return 0

    def append(self, path: str, *, base: int, offset: int, body: bytes, confirm: Callable[[], None] = always) -> int:
        with _refuse_long_names(path):
            place = compat.log_file(path)
        with place.open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # another API process may handle a repeat of the same call
            confirm()
            held = os.fstat(file.fileno()).st_size - base
            if held < 0:  # the bytes before this lease were deleted; restore their length, or no offset would match again
                file.truncate(base - 1)
                file.write(b"\n")
                held = 0
            room = self._most - base - held
            if room < 0:  # the log has its mark already, or the limit was lowered
                raise Unstorable(_FULL.format(most=self._most))
            if offset == held and len(body) > room:
                file.write(body[:room] + _mark(self._most))
                raise Unstorable(_FULL.format(most=self._most))
            if offset == held:
                file.write(body)
                return held + len(body)
            if offset + len(body) <= held:
                return held
            raise WrongOffset(held)


_FULL = "central keeps no more than {most} bytes of one log ([remote] log_bytes_per_job); the rest is on the worker"


def _mark(most: int) -> bytes:
    """Return the last line of a log that was cut, in Airflow's format."""
    return b"\n" + json.dumps({"level": "error", "event": _FULL.format(most=most)}).encode() + b"\n"


@contextmanager
def _refuse_long_names(path: str) -> Iterator[None]:
    """Turn an error about too long names into Unstorable.

    Airflow allows ids of 250 characters, and its template puts `dag_id=` before them; most file systems allow 255 bytes.
    """
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
