from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from airflow_remote_protocol.messages import JobKind, Outcome, Stop, StopReason
from airflow_remote_worker import system
from airflow_remote_worker.jobs.verdict import describe_offer, judge
from airflow_remote_worker.lease import Lease
from airflow_remote_worker.local.job_files import Result
from airflow_remote_worker.state.files import store
from airflow_remote_worker.state.spool import JobDir, ShimRecord

from ..conftest import make_offer

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
def test_a_result_counts_even_if_the_machine_was_restarted(job_dir: JobDir, result: Result, outcome: Outcome) -> None:
    store(job_dir.path / "result.json", result)
    report = judge(job_dir, ShimRecord(7, 1.0, "an-earlier-boot:1"), None).report
    assert (report.outcome, report.exit_code) == (outcome, result.exit_code)


def test_without_a_result_it_died_and_a_restart_of_the_machine_is_named(job_dir: JobDir) -> None:
    died = judge(job_dir, ShimRecord(7, 1.0, f"{system.boot_id()}:1"), None).report
    assert died.outcome is Outcome.DIED
    assert "was killed, ran out of memory" in died.reason
    assert "died with the machine" in judge(job_dir, ShimRecord(7, 1.0, "an-earlier-boot:1"), None).report.reason
    assert "was killed" in judge(job_dir, None, None).report.reason


def test_a_stopped_job_without_a_result_was_stopped(job_dir: JobDir) -> None:
    assert judge(job_dir, None, STOP).report.outcome is Outcome.STOPPED


def test_a_garbled_result_is_not_a_success(job_dir: JobDir) -> None:
    (job_dir.path / "result.json").write_bytes(b'{"exit_code":0,"fi')
    report = judge(job_dir, None, None).report
    assert report.outcome is Outcome.DIED
    assert "damaged" in report.reason


@pytest.mark.parametrize(
    ("result", "stop", "ending"),
    [
        (Result(exit_code=0, final_state="success"), None, "succeeded"),
        (Result(exit_code=1, final_state="failed"), None, "failed (exit code 1)"),
        (Result(exit_code=1, final_state="up_for_retry"), None, "failed and is up for retry (exit code 1)"),
        (Result(exit_code=0, final_state="deferred"), None, "deferred"),
        (Result(exit_code=0, final_state="skipped"), None, "was skipped"),
        (Result(exit_code=0, final_state="up_for_reschedule"), None, "is up for reschedule"),
        (Result(exit_code=1, final_state="SERVER_TERMINATED", stopped=True), STOP, "was stopped (ended)"),
        (Result(exit_code=1, final_state="", error="OSError: x"), None, "failed (exit code 1, OSError: x)"),
        (Result(exit_code=0, final_state="a_state_of_tomorrow"), None, "ended well"),
    ],
)
def test_the_worker_s_log_says_how_the_task_ended(job_dir: JobDir, result: Result, stop: Stop | None, ending: str) -> None:
    store(job_dir.path / "result.json", result)
    assert judge(job_dir, None, stop).ending == ending


def test_the_description_names_the_task_and_its_try() -> None:
    ti = {"id": "1", "dag_id": "d", "run_id": "r", "task_id": "t", "map_index": 3, "try_number": 2}
    offer = make_offer(workload=msgspec.Raw(msgspec.json.encode({"ti": ti})))
    assert describe_offer(offer) == "task d.t[3] of run r, try 2,"
    assert describe_offer(make_offer(kind=JobKind.CALLBACK)) == "callback"
