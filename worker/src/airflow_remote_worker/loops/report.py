"""Reports outcomes: once a job has ended and central has its writes and its log, sends its report until it is acknowledged."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from pathlib import Path

import anyio
import msgspec
from airflow_remote_protocol.messages import MAX_SHORT_TEXT, Outcome

from airflow_remote_worker.clock import Clock
from airflow_remote_worker.errors import Refused, Superseded
from airflow_remote_worker.jobs.job import Job
from airflow_remote_worker.link.attempts import RETRIED, Attempts
from airflow_remote_worker.link.client import Link
from airflow_remote_worker.loops.per_job import PerJob

log = logging.getLogger(__name__)

Close = Callable[[Job, str], None]


class ReportLoop(PerJob):
    """Sends the report of each job. *close* is called when nothing remains to be sent, with how the report ended."""

    verb = "report"

    def __init__(self, link: Link, clock: Clock, close: Close) -> None:
        super().__init__()
        self._link = link
        self._clock = clock
        self._close = close

    async def _process(self, job: Job) -> None:
        # After the task's own terminal state: if the scheduler learned of the end before, it would take the task for killed.
        await job.delivered.wait()
        await job.shipped.wait()
        how = "superseded" if job.superseded.is_set() else await self._deliver(job)
        self._close(job, how)

    async def _deliver(self, job: Job) -> str:
        """Deliver the report; return how that ended."""
        report = job.report or job.dir.report()
        if report is None:
            return "unstored"
        if report.outcome is Outcome.SUCCEEDED and (lost := job.outbox.lost):
            report = msgspec.structs.replace(report, outcome=Outcome.FAILED, reason=lost[:MAX_SHORT_TEXT])
        size, digest = await anyio.to_thread.run_sync(_weigh, job.dir.task_log)
        report = msgspec.structs.replace(report, log_size=size, log_sha256=digest)
        attempts = Attempts(self._link, self._clock)
        while not job.superseded.is_set():
            try:
                await self._link.report(job.lease, report)
            except Superseded as error:
                log.warning("job %s: its report is dropped, because its lease is over (%s)", job.lease, error)
                return "superseded"
            except Refused as error:
                if error.concerns_one_request:
                    log.error("job %s: central refuses its report for good: %s", job.lease, error)
                    return "refused"
                await attempts.wait_after(error)
            except RETRIED as error:
                await attempts.wait_after(error)
            else:
                log.debug("job %s: central has its report (%s)", job.lease, report.outcome.value)
                return "acknowledged"
        return "superseded"


def _weigh(path: Path) -> tuple[int, str]:
    """Return size and SHA-256 (hex) of the log."""
    digest, size = hashlib.sha256(), 0
    try:
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
                size += len(chunk)
    except FileNotFoundError:
        pass  # the job logged nothing
    return size, digest.hexdigest()
