from __future__ import annotations

from pathlib import Path

import pytest
from airflow_remote_protocol.messages import Outcome, Stop, StopReason
from airflow_remote_worker import posix
from airflow_remote_worker.jobs.verdict import judge
from airflow_remote_worker.lease import Lease
from airflow_remote_worker.shim.wire import Result
from airflow_remote_worker.spool import JobDir, ShimRecord
from airflow_remote_worker.state import store

STOP = Stop("a", 1, StopReason.ENDED)


@pytest.fixture
def job_dir(tmp_path: Path) -> JobDir:
    return JobDir(tmp_path, Lease("a", 1))


@pytest.mark.parametrize(
    ("result", "outcome"),
    [
        (Result(exit_code=0, final_state="success"), Outcome.SUCCEEDED),
        (Result(exit_code=3, final_state="failed"), Outcome.FAILED),
        (Result(exit_code=0, final_state="success", stopped=True), Outcome.STOPPED),
    ],
)
def test_a_result_is_what_counts_whatever_became_of_the_machine(job_dir: JobDir, result: Result, outcome: Outcome) -> None:
    store(job_dir.path / "result.json", result)
    report = judge(job_dir, ShimRecord(7, 1.0, "an-earlier-boot:1"), None).report
    assert (report.outcome, report.exit_code) == (outcome, result.exit_code)


def test_without_one_it_died_and_the_machine_s_restart_is_named(job_dir: JobDir) -> None:
    died = judge(job_dir, ShimRecord(7, 1.0, f"{posix.boot_id()}:1"), None).report
    assert died.outcome is Outcome.DIED
    assert "was killed, ran out of memory" in died.reason
    assert "died with the machine" in judge(job_dir, ShimRecord(7, 1.0, "an-earlier-boot:1"), None).report.reason
    assert "was killed" in judge(job_dir, None, None).report.reason


def test_what_was_stopped_and_left_no_result_was_stopped(job_dir: JobDir) -> None:
    assert judge(job_dir, None, STOP).report.outcome is Outcome.STOPPED


def test_a_garbled_result_is_no_success(job_dir: JobDir) -> None:
    (job_dir.path / "result.json").write_bytes(b'{"exit_code":0,"fi')
    report = judge(job_dir, None, None).report
    assert report.outcome is Outcome.DIED
    assert "damaged" in report.reason
