from __future__ import annotations

import hashlib
from pathlib import Path

import anyio
import pytest
from airflow_remote_protocol.errors import ProblemCode, make_problem
from airflow_remote_protocol.messages import Outcome, Report
from airflow_remote_worker.errors import Superseded, Unreachable, from_problem
from airflow_remote_worker.jobs.job import Job
from airflow_remote_worker.jobs.outbox_reader import OutboxReader
from airflow_remote_worker.lease import Lease
from airflow_remote_worker.loops.report import ReportLoop
from airflow_remote_worker.state.spool import JobDir

from ..conftest import HandClock, make_offer

pytestmark = pytest.mark.timeout(30)


class CentralStub:
    """Central's side: raises *trouble* in turn, then acknowledges."""

    def __init__(self, *trouble: Exception) -> None:
        self.trouble = list(trouble)
        self.received: list[Report] = []

    async def report(self, lease: Lease, report: Report) -> None:
        if self.trouble:
            raise self.trouble.pop(0)
        self.received.append(report)

    async def wait_for_contact(self, at_most_s: float) -> None:
        await anyio.sleep(0)


SUCCESS = Report(outcome=Outcome.SUCCEEDED, exit_code=0)


def report_job(central: CentralStub, path: Path, *, superseded: bool = False, report: Report = SUCCESS) -> str:
    job = Job(Lease("a", 1), make_offer("a"), JobDir(path, Lease("a", 1)))
    job.dir.task_log.write_bytes(b"hello")
    job.dir.store_report(report)
    closed: list[str] = []

    async def main() -> None:
        done = anyio.Event()

        def close(job: Job, how: str) -> None:
            closed.append(how)
            done.set()

        loop = ReportLoop(central, HandClock(), close)  # type: ignore[arg-type]
        async with anyio.create_task_group() as tasks:
            await tasks.start(loop.run)
            loop.follow(job)
            await anyio.sleep(0.01)
            assert not closed, "reported before its log was shipped"
            if superseded:
                job.superseded.set()
            job.shipped.set()
            await anyio.sleep(0.01)
            assert not closed, "reported before its task's writes were delivered"
            job.delivered.set()
            with anyio.fail_after(60):
                await done.wait()
            tasks.cancel_scope.cancel()

    anyio.run(main)
    (how,) = closed
    return how


def test_a_report_carries_size_and_checksum_of_the_log(tmp_path: Path) -> None:
    central = CentralStub()
    assert report_job(central, tmp_path) == "acknowledged"
    (report,) = central.received
    assert (report.log_size, report.log_sha256) == (5, hashlib.sha256(b"hello").hexdigest())


def test_it_is_repeated_until_it_is_acknowledged(tmp_path: Path) -> None:
    central = CentralStub(*[Unreachable("away")] * 20)
    assert report_job(central, tmp_path) == "acknowledged"


def test_the_report_of_a_superseded_job_is_dropped(tmp_path: Path) -> None:
    assert report_job(CentralStub(Superseded("epoch 2 exists")), tmp_path) == "superseded"


def test_a_job_that_is_known_to_be_superseded_is_not_reported(tmp_path: Path) -> None:
    central = CentralStub()
    assert report_job(central, tmp_path, superseded=True) == "superseded"
    assert central.received == []


@pytest.mark.parametrize("outcome", list(Outcome))
def test_a_job_that_lost_a_write_is_not_reported_as_a_success(tmp_path: Path, outcome: Outcome) -> None:
    OutboxReader(tmp_path).refuse("POST k1: 422", is_lost=True)
    central = CentralStub()
    report_job(central, tmp_path, report=Report(outcome=outcome, reason="as it was"))
    (report,) = central.received
    expected = (Outcome.FAILED, "POST k1: 422") if outcome is Outcome.SUCCEEDED else (outcome, "as it was")
    assert (report.outcome, report.reason) == expected


def test_a_report_that_central_can_t_accept_does_not_block_the_slot_for_ever(tmp_path: Path) -> None:
    assert report_job(CentralStub(from_problem(make_problem(ProblemCode.INVALID, "?"))), tmp_path) == "refused"
