from __future__ import annotations

import hashlib
from pathlib import Path

import anyio
import pytest
from airflow_remote_protocol.errors import ProblemCode, problem
from airflow_remote_protocol.messages import Outcome, Report
from airflow_remote_worker.errors import Superseded, Unreachable, from_problem
from airflow_remote_worker.jobs.job import Job
from airflow_remote_worker.jobs.outbox_reader import OutboxReader
from airflow_remote_worker.lease import Lease
from airflow_remote_worker.loops.report import ReportLoop
from airflow_remote_worker.state.spool import JobDir

from ..conftest import HandClock, make_offer

pytestmark = pytest.mark.timeout(30)


class Ear:
    """Central's half: raises what it is given, then acknowledges."""

    def __init__(self, *trouble: Exception) -> None:
        self.trouble = list(trouble)
        self.heard: list[Report] = []

    async def report(self, lease: Lease, report: Report) -> None:
        if self.trouble:
            raise self.trouble.pop(0)
        self.heard.append(report)

    async def wait_for_contact(self, at_most_s: float) -> None:
        await anyio.sleep(0)


SUCCESS = Report(outcome=Outcome.SUCCEEDED, exit_code=0)


def report_job(ear: Ear, path: Path, *, superseded: bool = False, report: Report = SUCCESS) -> str:
    job = Job(Lease("a", 1), make_offer("a"), JobDir(path, Lease("a", 1)))
    job.dir.task_log.write_bytes(b"hello")
    job.dir.store_report(report)
    closed: list[str] = []

    async def main() -> None:
        done = anyio.Event()

        def close(job: Job, how: str) -> None:
            closed.append(how)
            done.set()

        loop = ReportLoop(ear, HandClock(), close)  # type: ignore[arg-type]
        async with anyio.create_task_group() as tasks:
            await tasks.start(loop.run)
            loop.follow(job)
            await anyio.sleep(0.01)
            assert not closed, "reported before its log was shipped"
            if superseded:
                job.superseded.set()
            job.shipped.set()
            await anyio.sleep(0.01)
            assert not closed, "reported before what its task wrote was delivered"
            job.delivered.set()
            with anyio.fail_after(10):
                await done.wait()
            tasks.cancel_scope.cancel()

    anyio.run(main)
    (how,) = closed
    return how


def test_a_report_carries_size_and_checksum_of_the_log(tmp_path: Path) -> None:
    ear = Ear()
    assert report_job(ear, tmp_path) == "acknowledged"
    (report,) = ear.heard
    assert (report.log_size, report.log_sha256) == (5, hashlib.sha256(b"hello").hexdigest())


def test_it_is_repeated_until_it_is_acknowledged(tmp_path: Path) -> None:
    ear = Ear(*[Unreachable("away")] * 20)
    assert report_job(ear, tmp_path) == "acknowledged"


def test_a_report_about_a_job_of_someone_else_is_dropped(tmp_path: Path) -> None:
    assert report_job(Ear(Superseded("epoch 2 exists")), tmp_path) == "superseded"


def test_a_job_known_to_be_superseded_is_not_reported(tmp_path: Path) -> None:
    ear = Ear()
    assert report_job(ear, tmp_path, superseded=True) == "superseded"
    assert ear.heard == []


@pytest.mark.parametrize("outcome", list(Outcome))
def test_a_job_that_lost_a_write_is_not_reported_as_a_success(tmp_path: Path, outcome: Outcome) -> None:
    OutboxReader(tmp_path).refuse("POST k1: 422", is_lost=True)
    ear = Ear()
    report_job(ear, tmp_path, report=Report(outcome=outcome, reason="as it was"))
    (heard,) = ear.heard
    expected = (Outcome.FAILED, "POST k1: 422") if outcome is Outcome.SUCCEEDED else (outcome, "as it was")
    assert (heard.outcome, heard.reason) == expected


def test_a_report_that_central_can_t_accept_does_not_block_the_slot_for_ever(tmp_path: Path) -> None:
    assert report_job(Ear(from_problem(problem(ProblemCode.INVALID, "?"))), tmp_path) == "refused"
