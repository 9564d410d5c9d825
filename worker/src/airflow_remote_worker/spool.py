"""What is said but not yet acknowledged, on disk: one directory per lease, `jobs/<job id>.<epoch>/`.

| file | written by | means |
|---|---|---|
| `offer.json` | daemon, first | we hold this lease |
| `job.json` | daemon, right before the start | the shim may run from here on |
| `shim.json` | daemon, once known | which process it is |
| `task.log`, `shim.log`, `result.json` | shim | see `shim/wire.py` |
| `report.json` | daemon | the outcome, to be sent until acknowledged |
| `outbox`; `outbox.done`, `outbox.refused` | shim; daemon | the task's writes that central has not heard yet: `shim/outbox.py` |
| `closed.json` | daemon, last | nothing is owed any more; logs stay for people until rotated |
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import msgspec
from airflow_remote_protocol.messages import Offer, Report

from airflow_remote_worker.errors import Damaged
from airflow_remote_worker.lease import Lease
from airflow_remote_worker.shim.wire import JobSpec, Result
from airflow_remote_worker.state import read, write

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


class JobDir:
    """The directory of one lease."""

    def __init__(self, path: Path, lease: Lease) -> None:
        self.path = path
        self.lease = lease
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
            self._write("offer.json", offer)
        except OSError:
            self.remove()
            raise

    def offer(self) -> Offer:
        """Return the stored offer.

        Raises:
            Damaged: missing or unreadable.
        """
        if (offer := self._read(Offer, "offer.json")) is None:
            raise Damaged(f"{self.path} has no offer.json: the daemon was cut off while it took the job")
        return offer

    def store_spec(self, spec: JobSpec) -> None:
        self._write("job.json", spec)

    def spec(self) -> JobSpec | None:
        return self._read(JobSpec, "job.json")

    def store_shim(self, shim: ShimRecord) -> None:
        self._write("shim.json", shim)

    def shim(self) -> ShimRecord | None:
        return self._read(ShimRecord, "shim.json")

    def result(self) -> Result | None:
        """Return how the shim says it ended; None if it wrote nothing."""
        return self._read(Result, "result.json")

    def store_report(self, report: Report) -> None:
        """Store the outcome so that it survives anything but the disk."""
        write(self.path / "report.json", msgspec.json.encode(report), durable=True)

    def report(self) -> Report | None:
        return self._read(Report, "report.json")

    def close(self, how: str, at: float) -> None:
        """Owe nothing any more. The key, the workload and what the task wrote go, the logs stay."""
        self._write("closed.json", Closed(how=how, at=at))
        for name in ("job.json", "offer.json", "shim.json", "outbox", "outbox.done", "outbox.refused"):
            with contextlib.suppress(OSError):
                (self.path / name).unlink(missing_ok=True)

    def closed(self) -> Closed | None:
        return self._read(Closed, "closed.json")

    def remove(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)

    def _write(self, name: str, message: msgspec.Struct) -> None:
        # Not synced: after a power cut no shim is alive, and central counts a lease that we don't list as lost, which is true.
        write(self.path / name, msgspec.json.encode(message))

    def _read(self, kind: type[_T], name: str) -> _T | None:
        try:
            return read(kind, self.path / name)
        except FileNotFoundError:
            return None


class Spool:
    """All job directories of this worker."""

    def __init__(self, jobs: Path, quarantine: Path) -> None:
        self._jobs = jobs
        self._quarantine = quarantine

    def of(self, lease: Lease) -> JobDir:
        """Return the directory of *lease*, which need not exist.

        Raises:
            ValueError: central's job id would leave our directory.
        """
        if not lease.job_id.replace("-", "").isalnum():
            raise ValueError(f"job id {lease.job_id[:80]!r} is not an id")
        return JobDir(self._jobs / f"{lease.job_id}.{lease.epoch}", lease)

    def __iter__(self) -> Iterator[JobDir]:
        """Yield every job directory, oldest first; what is not one is left alone."""
        for path in sorted((p for p in self._jobs.iterdir() if p.is_dir()), key=lambda p: (p.stat().st_mtime, p.name)):
            job_id, _, epoch = path.name.rpartition(".")
            if job_id and epoch.isdigit():
                yield JobDir(path, Lease(job_id, int(epoch)))

    def quarantine(self, job: JobDir) -> Path:
        """Move a damaged directory out of the way, for a person to look at."""
        self._quarantine.mkdir(mode=0o700, exist_ok=True)
        target = self._quarantine / job.path.name
        shutil.rmtree(target, ignore_errors=True)
        return job.path.rename(target)
