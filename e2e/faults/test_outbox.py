"""Topic suite: what a task writes while central is unreachable waits on the worker's disk and arrives once, in order.

This is also true if the API server or the daemon is killed in the meantime.
"""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest

from testkit.processes import wait_until
from testkit.servers.airflow import Airflow
from testkit.worker import Worker


class Gate:
    """Holds the task until central is unreachable; its trail file shows that user code has passed it."""

    def __init__(self, directory: Path) -> None:
        self.file, self.trail = directory / "gate", directory / "trail"

    def start(self, central: Airflow, dag_id: str, task_id: str) -> str:
        """Start a run and wait for its task before the gate."""
        run = central.trigger(dag_id, {"gate": str(self.file), "trail": str(self.trail)})
        central.wait_for_task(dag_id, run, task_id, "running")
        wait_until(
            lambda: "at the gate" in central.task_log(dag_id, run, task_id), timeout_s=20, what="the task waits", every_s=0.3
        )
        return run

    def open(self) -> None:
        self.file.touch()


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(tmp_path)


def newest_job(worker: Worker) -> Path:
    return max((worker.state / "jobs").iterdir(), key=lambda path: path.stat().st_mtime)


def free_slots(worker: Worker) -> int:
    return int(json.loads((worker.state / "status.json").read_bytes())["free_slots"])


def wait_for_end(worker: Worker, job: Path) -> None:
    wait_until(lambda: (job / "result.json").exists(), timeout_s=40, what="the task ends although central is unreachable")


def assert_arrived_once(central: Airflow, run: str, gate: Gate, ended_at: float) -> None:
    assert central.wait_for_run("pushing", run) == "success"
    assert central.xcom("pushing", run, "pull") == [{"text": "grüße"}, 2, 1_000_000]
    task = central.task_instance("pushing", run, "push")
    assert (task["state"], task["try_number"]) == ("success", 1)
    assert gate.trail.read_text().count("pushed") == 1, "user code ran once"
    rows = central.query(
        "SELECT extract(epoch FROM end_date) AS at FROM task_instance WHERE run_id = :run AND task_id = 'push'", run=run
    )
    assert float(rows[0]["at"]) <= ended_at, "its end date is the time of its end, not of the report to central"
    successes = central.query(
        "SELECT count(*) AS n FROM log WHERE run_id = :run AND task_id = 'push' AND event = 'success'", run=run
    )
    assert successes[0]["n"] == 1
    (job,) = central.jobs(run)
    wait_until(lambda: central.jobs(run)[0]["state"] == "succeeded", timeout_s=60, what="the job is reported")
    assert job["epoch"] == 1


def test_a_task_ends_while_the_api_server_is_stopped(central: Airflow, worker: Worker, gate: Gate) -> None:
    run = gate.start(central, "pushing", "push")
    job = newest_job(worker)
    central.stop_process("api-server")
    gate.open()
    wait_for_end(worker, job)
    ended_at = time.time()
    wait_until(lambda: free_slots(worker) == 4, timeout_s=60, what="the slot is free")
    time.sleep(5)
    central.start_api_server()
    assert_arrived_once(central, run, gate, ended_at)


def test_a_task_whose_writes_central_refuses_never_succeeds(central: Airflow, worker: Worker, gate: Gate) -> None:
    run = gate.start(central, "refused_pushes", "push")
    central.wait_for_task("refused_pushes", run, "beside", "success")
    job = newest_job(worker)
    central.stop_process("api-server")
    gate.open()
    wait_for_end(worker, job)
    central.start_api_server()
    central.wait_for_run("refused_pushes", run)
    assert central.task_instance("refused_pushes", run, "push")["state"] == "failed"
    assert central.task_instance("refused_pushes", run, "beside")["state"] == "success"
    assert central.xcom("refused_pushes", run, "after") == [["AirflowRuntimeError", "taken", "AirflowRuntimeError"], "fine"]
    log = central.task_log("refused_pushes", run, "push")
    assert "Central refused a write that the task made while central was unreachable: PATCH" in log
    assert "skip-downstream" in log
    wait_until(lambda: central.jobs(run)[0]["state"] == "failed", timeout_s=60, what="the job is reported")


def test_a_task_ends_while_the_api_server_hangs(central: Airflow, worker: Worker, gate: Gate) -> None:
    run = gate.start(central, "pushing", "push")
    job = newest_job(worker)
    server = central.process("api-server")
    os.killpg(server.pid, signal.SIGSTOP)
    try:
        gate.open()
        wait_for_end(worker, job)
        ended_at = time.time()
        time.sleep(2)
    finally:
        os.killpg(server.pid, signal.SIGCONT)
    assert_arrived_once(central, run, gate, ended_at)


def test_the_daemon_is_killed_while_a_task_ends_without_central(central: Airflow, worker: Worker, gate: Gate) -> None:
    run = gate.start(central, "pushing", "push")
    job = newest_job(worker)
    central.stop_process("api-server")
    worker.kill()
    gate.open()
    wait_for_end(worker, job)
    ended_at = time.time()
    assert (job / "outbox").exists()
    worker.start(wait=False)
    time.sleep(1)
    worker.kill()  # in the middle of its attempts to deliver
    central.start_api_server()
    worker.start()
    assert_arrived_once(central, run, gate, ended_at)


def test_a_first_try_that_fails_while_central_is_stopped_is_retried(central: Airflow, worker: Worker, gate: Gate) -> None:
    run = gate.start(central, "stumbling", "stumble")
    job = newest_job(worker)
    central.stop_process("api-server")
    gate.open()
    wait_for_end(worker, job)
    central.start_api_server()
    assert central.wait_for_run("stumbling", run) == "success"
    assert central.task_instance("stumbling", run, "stumble")["try_number"] == 2
    assert central.xcom("stumbling", run, "stumble", "try") == 2
    assert "the first try fails on purpose" in central.task_log("stumbling", run, "stumble", 1)


def test_a_users_action_takes_precedence_over_earlier_writes_of_the_task(central: Airflow, worker: Worker, gate: Gate) -> None:
    run = gate.start(central, "stumbling", "stumble")
    job = newest_job(worker)
    worker.kill()
    gate.open()
    wait_for_end(worker, job)
    assert (job / "outbox").exists()
    central.set_task_state("stumbling", run, "stumble", "success")
    wait_until(lambda: central.jobs(run)[0]["stop_reason"], timeout_s=60, what="central revokes the job")
    worker.start()
    wait_until(lambda: central.jobs(run)[0]["state"] == "revoked", timeout_s=20, what="the job has ended")
    assert central.task_instance("stumbling", run, "stumble")["state"] == "success"
    left = [row for row in central.xcoms("stumbling", run) if row["key"] == "try"]
    assert left == [], "central discards what the task wrote before its worker learned of the user's action"
