"""Logs as files under `[logging] base_log_folder`, where Airflow's UI reads them live."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager

from airflow_remote_provider import compat
from airflow_remote_provider.logstores import OutOfStep, Unstorable


class FileLogStore:
    """Needs one disk for all API servers (and so for all that read logs), as Airflow's own local logs do."""

    def size(self, path: str) -> int:
        try:
            with _names_that_fit(path):
                return (compat.base_log_folder() / path).stat().st_size
        except FileNotFoundError:
            return 0

    def append(self, path: str, base: int, offset: int, body: bytes) -> int:
        with _names_that_fit(path):
            place = compat.log_file(path)
        with place.open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # another API process may serve the same worker's repeat
            held = os.fstat(file.fileno()).st_size - base
            if held < 0:  # somebody deleted what came before this lease; keep its place, or nothing would ever join again
                file.truncate(base - 1)
                file.write(b"\n")
                held = 0
            if offset == held:
                file.write(body)
                return held + len(body)
            if offset + len(body) <= held:
                return held
            raise OutOfStep(held)


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
