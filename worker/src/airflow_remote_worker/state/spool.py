"""What is said but not yet acknowledged, on disk: one directory per lease, `jobs/<job id>.<epoch>/`.

| file | written by | means |
|---|---|---|
| `offer.json`, `.copy` | daemon, first | we hold this lease |
| `job.json`, `.copy` | daemon, right before the start | the shim may run from here on |
| `shim.json` | daemon, once known | which process it is |
| `task.log`, `shim.log`, `result.json` | shim | see `local/frames.py` |
| `report.json` | daemon | the outcome, to be sent until acknowledged |
| `outbox`; `outbox.done`, `outbox.refused` | shim; daemon | writes that central has not received yet: `local/outbox_file.py` |
| `closed.json` | daemon, last | nothing is owed any more; logs stay for people until rotated |

What can't be found out again has a copy. Damaged files go to `quarantine/`; what is known without them is said at each read.
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
    """`shim.json`: which process hosts the job."""

    pid: int
    start_time: float
    birth_mark: str = ""


class Closed(msgspec.Struct, frozen=True):
    """`closed.json`: how the lease left this worker, and when (wall clock)."""

    how: str
    at: float


def _leave(path: Path) -> None:
    """The default place for damaged files."""


class JobDir:
    """The directory of one lease."""

    def __init__(self, path: Path, lease: Lease, put_aside: Callable[[Path], object] = _leave) -> None:
        """*put_aside* takes the files of it that are damaged; without it they stay."""
        self.path = path
        self.lease = lease
        self._put_aside = put_aside
        self.task_log = path / "task.log"
        self.shim_log = path / "shim.log"

    def store_offer(self, offer: Offer) -> None:
        """Store *offer*.

        Raises:
            FileExistsError: we had this lease before; taking it again would run the job twice.
            OSError: the disk won't take it; nothing is left behind.
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
            raise Damaged(f"{self.path} has no offer.json: the daemon was cut off while it took the job") from None
        if Lease(offer.job_id, offer.epoch) != self.lease:
            raise Damaged(f"{self.path}/offer.json is about {offer.job_id} (epoch {offer.epoch})")
        return offer

    def store_spec(self, spec: JobSpec) -> None:
        write_twice(self.path / "job.json", spec)

    def spec(self) -> JobSpec | None:
        """Return what the shim was told; None if it was never started.

        Raises:
            Damaged: unreadable in both copies.
        """
        try:
            return read_twice(JobSpec, self.path / "job.json", self._put_aside)
        except FileNotFoundError:
            return None

    def store_shim(self, shim: ShimRecord) -> None:
        """Note the process; if the disk won't take it, the next daemon finds it by its log or its call."""
        try:
            store(self.path / "shim.json", shim)
        except OSError as error:
            log.warning("job %s: its process %d can't be noted: %s", self.lease, shim.pid, error)

    def shim(self) -> ShimRecord | None:
        """Return the process that was noted; None if there is none or it can't be read: it can be found otherwise."""
        return self._read(ShimRecord, "shim.json")

    def result(self) -> Result | None:
        """Return how the shim says it ended; None if it wrote nothing.

        Raises:
            Damaged: it wrote, and it can't be read.
        """
        try:
            return read(Result, self.path / "result.json")
        except FileNotFoundError:
            return None

    def has_result(self) -> bool:
        return (self.path / "result.json").exists()

    def has_started(self) -> bool:
        """Say whether a shim may have been started, readable notes or not."""
        notes = self.path / "job.json"
        return any(path.exists() for path in (notes, copy_of(notes), self.shim_log, self.path / "shim.json", self.task_log))

    def store_report(self, report: Report) -> None:
        """Store the outcome so that it survives anything but the disk."""
        store(self.path / "report.json", report, durable=True)

    def report(self) -> Report | None:
        """Return the stored outcome; None if there is none or it can't be read: it follows from the result once more."""
        return self._read(Report, "report.json")

    def close(self, how: str, at: float) -> None:
        """Owe nothing any more. The key, the workload and what the task wrote go, the logs stay."""
        try:
            store(self.path / "closed.json", Closed(how=how, at=at))
        except OSError:
            # A full disk: what goes now makes the room.
            self._drop("job.json")
            store(self.path / "closed.json", Closed(how=how, at=at))
        for name in ("job.json", "offer.json", "shim.json", "outbox", "outbox.done", "outbox.refused", "outbox.lost"):
            self._drop(name)

    def closed(self) -> Closed | None:
        """Return how and when it was closed; None if something is still owed. A damaged file says that much by being there."""
        path = self.path / "closed.json"
        try:
            return read(Closed, path)
        except FileNotFoundError:
            return None
        except Damaged as error:
            log.warning("%s; the job was closed, that is all that is needed of it", error)
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
        """Return what nobody misses for long; if damaged, put it aside and say so."""
        try:
            return read(kind, self.path / name)
        except FileNotFoundError:
            return None
        except Damaged as error:
            log.error("job %s: %s; it is put aside, the job goes on without it", self.lease, error)
            self._put_aside(self.path / name)
            return None


class Spool:
    """All job directories of this worker."""

    def __init__(self, jobs: Path, quarantine: Path) -> None:
        self._jobs = jobs
        self._put_aside = partial(put_aside, quarantine=quarantine)

    def of(self, lease: Lease) -> JobDir:
        """Return the directory of *lease*, which need not exist.

        Raises:
            ValueError: central's job id would leave our directory.
        """
        if not lease.job_id.replace("-", "").isalnum():
            raise ValueError(f"job id {lease.job_id[:80]!r} is not an id")
        return JobDir(self._jobs / f"{lease.job_id}.{lease.epoch}", lease, self._put_aside)

    def __iter__(self) -> Iterator[JobDir]:
        """Yield every job directory, oldest first; what is not one is left alone."""
        found: list[tuple[float, str, JobDir]] = []
        for path in self._jobs.iterdir():
            job_id, _, epoch = path.name.rpartition(".")
            with contextlib.suppress(OSError):  # gone meanwhile, or a directory that the disk can't read any more
                if job_id and epoch.isdecimal() and epoch.isascii() and path.is_dir():
                    found.append((path.stat().st_mtime, path.name, JobDir(path, Lease(job_id, int(epoch)), self._put_aside)))
        yield from (job for _, _, job in sorted(found, key=lambda entry: entry[:2]))

    def put_aside(self, job: JobDir) -> object:
        """Move the whole directory into quarantine, where nobody takes it for a job; return where it is now."""
        return self._put_aside(job.path)
