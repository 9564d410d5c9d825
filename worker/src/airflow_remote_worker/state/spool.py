"""The leases of jobs on disk: one directory for each, `jobs/<job id>.<epoch>/`.

| file | written by | meaning |
|---|---|---|
| `offer.json`, `.copy` | daemon, first | this worker holds the lease |
| `job.json`, `.copy` | daemon, right before the start | the shim may run from now on |
| `shim.json` | daemon, once known | the shim's process |
| `task.log`, `shim.log`, `result.json` | shim | see `local/job_files.py` |
| `report.json` | daemon | the outcome, sent until acknowledged |
| `outbox`; `outbox.done`, `outbox.refused` | shim; daemon | writes that central has not received yet: `local/outbox_file.py` |
| `closed.json` | daemon, last | everything is acknowledged; logs stay for users until they are removed |

Files that can't be restored from elsewhere have a copy. Damaged files are moved to `quarantine/`; each method says what happens
then.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TypeVar

import msgspec
from airflow_remote_protocol.messages import Offer, Report

from airflow_remote_worker.errors import Damaged
from airflow_remote_worker.lease import Lease
from airflow_remote_worker.local.job_files import JobSpec, Result
from airflow_remote_worker.state.files import copy_of, put_aside, read, read_twice, store, write_twice

log = logging.getLogger(__name__)

_T = TypeVar("_T", bound=msgspec.Struct)


class ShimRecord(msgspec.Struct, frozen=True):
    """`shim.json`: the process that hosts the job."""

    pid: int
    start_time: float
    birth_mark: str = ""


class Closed(msgspec.Struct, frozen=True):
    """`closed.json`: how the lease left this worker, and when (wall clock)."""

    how: str
    at: float


def _leave(path: Path) -> None:
    """The default for damaged files: leave them."""


class JobDir:
    """The directory of one lease."""

    def __init__(self, path: Path, lease: Lease, put_aside: Callable[[Path], object] = _leave) -> None:
        """*put_aside* is called with damaged files; by default they stay."""
        self.path = path
        self.lease = lease
        self._put_aside = put_aside
        self.task_log = path / "task.log"
        self.shim_log = path / "shim.log"

    def store_offer(self, offer: Offer) -> None:
        """Store *offer*.

        Raises:
            FileExistsError: the lease was stored before; taking it again would run the job twice.
            OSError: it can't be stored; nothing is left behind.
        """
        self.path.mkdir(mode=0o700)
        try:
            write_twice(self.path / "offer.json", offer)
        except OSError:
            self.remove()
            raise

    def offer(self) -> Offer:
        """Return the stored offer.

        Raises:
            Damaged: missing, unreadable, or another lease's, in both copies.
        """
        try:
            offer = read_twice(Offer, self.path / "offer.json", self._put_aside)
        except FileNotFoundError:
            raise Damaged(f"{self.path} has no offer.json: the daemon was interrupted while it took the job") from None
        if Lease(offer.job_id, offer.epoch) != self.lease:
            raise Damaged(f"{self.path}/offer.json is about {offer.job_id} (epoch {offer.epoch})")
        return offer

    def store_spec(self, spec: JobSpec) -> None:
        write_twice(self.path / "job.json", spec)

    def spec(self) -> JobSpec | None:
        """Return the shim's input; None if the shim was never started.

        Raises:
            Damaged: unreadable in both copies.
        """
        try:
            return read_twice(JobSpec, self.path / "job.json", self._put_aside)
        except FileNotFoundError:
            return None

    def store_shim(self, shim: ShimRecord) -> None:
        """Store the shim's process. If that fails, the next daemon finds it by its log, or when it connects."""
        try:
            store(self.path / "shim.json", shim)
        except OSError as error:
            log.warning("job %s: shim.json for its process %d can't be stored: %s", self.lease, shim.pid, error)

    def shim(self) -> ShimRecord | None:
        """Return the stored process; None if there is nothing readable: it can be found in other ways."""
        return self._read(ShimRecord, "shim.json")

    def result(self) -> Result | None:
        """Return the shim's result; None if it wrote no result.

        Raises:
            Damaged: the result can't be read.
        """
        try:
            return read(Result, self.path / "result.json")
        except FileNotFoundError:
            return None

    def has_result(self) -> bool:
        return (self.path / "result.json").exists()

    def has_started(self) -> bool:
        """Return whether a shim may have been started, even if its files are damaged."""
        notes = self.path / "job.json"
        return any(path.exists() for path in (notes, copy_of(notes), self.shim_log, self.path / "shim.json", self.task_log))

    def store_report(self, report: Report) -> None:
        """Store the outcome so that it survives a power cut."""
        store(self.path / "report.json", report, durable=True)

    def report(self) -> Report | None:
        """Return the stored outcome; None if there is nothing readable: it can be derived from the result again."""
        return self._read(Report, "report.json")

    def close(self, how: str, at: float) -> None:
        """Mark the lease as closed. Remove the key, the workload and the task's writes; keep the logs."""
        try:
            store(self.path / "closed.json", Closed(how=how, at=at))
        except OSError:
            # The disk is full: removing a file makes the room.
            self._drop("job.json")
            store(self.path / "closed.json", Closed(how=how, at=at))
        for name in ("job.json", "offer.json", "shim.json", "outbox", "outbox.done", "outbox.refused", "outbox.lost"):
            self._drop(name)

    def closed(self) -> Closed | None:
        """Return how and when it was closed; None if it is open. A damaged file still means closed."""
        path = self.path / "closed.json"
        try:
            return read(Closed, path)
        except FileNotFoundError:
            return None
        except Damaged as error:
            log.warning("%s; the job was closed, so nothing else is needed from the file", error)
            try:
                return Closed(how="damaged", at=path.stat().st_mtime)
            except OSError:
                return Closed(how="damaged", at=0.0)

    def remove(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)

    def _drop(self, name: str) -> None:
        for path in (self.path / name, copy_of(self.path / name)):
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)

    def _read(self, kind: type[_T], name: str) -> _T | None:
        """Return a file that can be replaced; if it is damaged, log that and move it to the quarantine."""
        try:
            return read(kind, self.path / name)
        except FileNotFoundError:
            return None
        except Damaged as error:
            log.error("job %s: %s; the file was moved to the quarantine, the job goes on without it", self.lease, error)
            self._put_aside(self.path / name)
            return None


class Spool:
    """All job directories of this worker."""

    def __init__(self, jobs: Path, *, quarantine: Path) -> None:
        self._jobs = jobs
        self._put_aside = partial(put_aside, quarantine=quarantine)

    def of(self, lease: Lease) -> JobDir:
        """Return the directory of *lease*, which may not exist.

        Raises:
            ValueError: central's job id is not an id, so that the path could be outside the directory of jobs.
        """
        if not lease.job_id.replace("-", "").isalnum():
            raise ValueError(f"job id {lease.job_id[:80]!r} is not an id")
        return JobDir(self._jobs / f"{lease.job_id}.{lease.epoch}", lease, self._put_aside)

    def __iter__(self) -> Iterator[JobDir]:
        """Yield every job directory, oldest first; ignore everything else."""
        found: list[tuple[float, str, JobDir]] = []
        for path in self._jobs.iterdir():
            job_id, _, epoch = path.name.rpartition(".")
            with contextlib.suppress(OSError):  # removed meanwhile, or the disk can't read the directory any more
                if job_id and epoch.isdecimal() and epoch.isascii() and path.is_dir():
                    found.append((path.stat().st_mtime, path.name, JobDir(path, Lease(job_id, int(epoch)), self._put_aside)))
        yield from (job for _, _, job in sorted(found, key=lambda entry: entry[:2]))

    def put_aside(self, job: JobDir) -> object:
        """Move the whole directory to the quarantine, so that it is no job any more; return its new path."""
        return self._put_aside(job.path)
