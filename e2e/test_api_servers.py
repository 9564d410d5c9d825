"""Topic suite: two API servers with one database and one worker at each; workers and users can use either of them."""

from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from testkit.processes import wait_until
from testkit.servers.airflow import Airflow
from testkit.worker import Worker

WOKEN_WITHIN_S = 10.0
"""The time until a poll is woken, which otherwise stays open for 50 s."""
GONE_WITHIN_S = 3.0
DUTY_PASSES_WITHIN_S = 20.0
"""The longest time until another process takes over the duties of one that has died."""


@pytest.fixture(scope="module")
def sides(redundant: Airflow, new_worker: Callable[..., Worker]) -> Iterator[dict[str, Worker]]:
    other = redundant.start_another_api_server(called="api-server-2")
    workers = {
        "east": new_worker(redundant, "east", queues="east", slots=2),
        "west": new_worker(redundant, "west", queues="west", slots=2, url=other),
    }
    yield workers
    for worker in workers.values():
        worker.stop()
    redundant.stop_process("api-server-2")


@pytest.fixture(autouse=True)
def _end_runs(redundant: Airflow, sides: dict[str, Worker]) -> Iterator[None]:
    """End the remaining runs after each test: their jobs would fill slots in later tests."""
    yield
    for run in redundant.api("GET", "dags/both_sides/dagRuns?state=running")["dag_runs"]:
        redundant.api("PATCH", f"dags/both_sides/dagRuns/{run['dag_run_id']}", json={"state": "failed"})


def test_tasks_and_kills_reach_the_workers_of_both(redundant: Airflow, sides: dict[str, Worker], tmp_path: Path) -> None:
    run, pids = _start(redundant, tmp_path)
    for job in redundant.jobs(run):
        assert job["worker_name"] == job["task_id"]
        waited = (job["offered_at"] - job["queued_at"]).total_seconds()
        assert waited < WOKEN_WITHIN_S, f"the API server of {job['task_id']} was not woken: {waited} s"
    for side in sides:
        redundant.set_task_state("both_sides", run, side, "failed")
        _wait_until_gone(pids[side], GONE_WITHIN_S)
    assert redundant.wait_for_run("both_sides", run) == "failed"


def test_the_logs_of_both_workers_are_shown(redundant: Airflow, sides: dict[str, Worker], tmp_path: Path) -> None:
    run, _ = _start(redundant, tmp_path)
    for side in sides:
        wait_until(lambda side=side: "Running command" in redundant.task_log("both_sides", run, side), timeout_s=60, what="a log")
    redundant.api("PATCH", f"dags/both_sides/dagRuns/{run}", json={"state": "failed"})
    wait_until(lambda: all(job["ended_at"] for job in redundant.jobs(run)), timeout_s=60, what="both have ended")


def test_a_kill_arrives_although_an_api_server_has_died(redundant: Airflow, sides: dict[str, Worker], tmp_path: Path) -> None:
    run, pids = _start(redundant, tmp_path)
    redundant.kill_process("api-server-2")
    redundant.set_task_state("both_sides", run, "east", "failed")
    _wait_until_gone(pids["east"], DUTY_PASSES_WITHIN_S + GONE_WITHIN_S)
    # The other worker has no API server; its task continues and is stopped when the server is back.
    redundant.set_task_state("both_sides", run, "west", "failed")
    assert psutil.pid_exists(pids["west"])
    redundant.start_another_api_server(called="api-server-2")
    _wait_until_gone(pids["west"], DUTY_PASSES_WITHIN_S + GONE_WITHIN_S)
    # The worker is stopped after this test: a job whose end central does not receive would fill a slot in later tests.
    wait_until(lambda: all(job["ended_at"] for job in redundant.jobs(run)), timeout_s=60, what="central has received both ends")


def _start(central: Airflow, directory: Path) -> tuple[str, dict[str, int]]:
    """Start a task on each side; return the Dag run and their pids when they run."""
    run = central.trigger("both_sides", {"directory": str(directory)})
    files = {side: directory / side for side in ("east", "west")}
    wait_until(lambda: all(file.exists() for file in files.values()), timeout_s=60, what="a task runs on each side")
    for side in files:
        central.wait_for_task("both_sides", run, side, "running")
    return run, {side: int(file.read_text()) for side, file in files.items()}


def _wait_until_gone(pid: int, within_s: float) -> None:
    wait_until(lambda: not psutil.pid_exists(pid), timeout_s=within_s, what=f"process {pid} is gone", every_s=0.05)
