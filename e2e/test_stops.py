"""Topic suite: the processes of a task that a user or a timeout ends are gone from the remote computer within seconds."""

import time
from pathlib import Path

import psutil
import pytest

from testkit.processes import wait_until
from testkit.servers.airflow import Airflow
from testkit.worker import Worker

GONE_WITHIN_S = 3.0
"""From the user's request, plus the task's own clean-up."""
STUBBORN_S = 5.0
"""The time of Airflow's supervisor between SIGTERM and SIGKILL."""


@pytest.mark.parametrize(("state", "run_ends"), [("failed", "failed"), ("success", "success")])
def test_marking_a_running_task_ends_its_processes(
    central: Airflow, worker: Worker, tmp_path: Path, state: str, run_ends: str
) -> None:
    run, pids = _start(central, "lingering", tmp_path)
    central.set_task_state("lingering", run, "linger", state)
    _assert_gone(pids)
    assert central.wait_for_run("lingering", run) == run_ends
    assert central.task_instance("lingering", run, "linger")["state"] == state


def test_a_task_that_ignores_sigterm_is_killed(central: Airflow, worker: Worker, tmp_path: Path) -> None:
    run, pids = _start(central, "stubborn", tmp_path)
    central.set_task_state("stubborn", run, "linger", "failed")
    _assert_gone(pids, wind_down_s=STUBBORN_S)
    assert central.wait_for_run("stubborn", run) == "failed"


def test_clearing_a_running_task_ends_its_processes_and_runs_it_again(central: Airflow, worker: Worker, tmp_path: Path) -> None:
    run, pids = _start(central, "lingering", tmp_path)
    central.clear_task("lingering", run, "linger")
    _assert_gone(pids)
    assert central.wait_for_run("lingering", run) == "success"
    assert central.xcom("lingering", run, "linger") == "the second time"


def test_deleting_the_dag_run_ends_the_processes(central: Airflow, worker: Worker, tmp_path: Path) -> None:
    run, pids = _start(central, "lingering", tmp_path)
    central.delete_run("lingering", run)
    _assert_gone(pids)
    wait_until(lambda: central.jobs(run)[0]["ended_at"], timeout_s=60, what="the job has ended")
    assert central.is_running("scheduler")


def test_marking_a_queued_task_revokes_its_job(central: Airflow, worker: Worker) -> None:
    run = central.trigger("unserved")
    [job] = wait_until(lambda: central.jobs(run), timeout_s=30, what="the job is queued")
    assert job["state"] == "queued"
    central.set_task_state("unserved", run, "wait", "failed")
    wait_until(lambda: central.jobs(run)[0]["state"] == "revoked", timeout_s=GONE_WITHIN_S, what="the job is revoked")
    assert central.wait_for_run("unserved", run) == "failed"


def test_execution_timeout_ends_the_processes(central: Airflow, worker: Worker, tmp_path: Path) -> None:
    run, pids = _start(central, "impatient", tmp_path)
    _assert_gone(pids, wind_down_s=4)
    assert central.wait_for_run("impatient", run) == "failed"
    assert "AirflowTaskTimeout" in central.task_log("impatient", run, "linger")


def test_a_stopped_task_frees_its_slot(central: Airflow, worker: Worker) -> None:
    wait_until(
        lambda: not central.query("SELECT id FROM remote_job WHERE ended_at IS NULL AND worker_name = :name", name=worker.name),
        timeout_s=30,
        what="no job of this worker is open after all were stopped",
    )


def _start(central: Airflow, dag_id: str, directory: Path) -> tuple[str, list[int]]:
    """Start the Dag; return the run and the pids of its task's processes when they exist."""
    run = central.trigger(dag_id, {"directory": str(directory)})
    pids = directory / "pids"
    wait_until(pids.exists, timeout_s=60, what=f"the task of {dag_id} runs")
    found = [int(pid) for pid in pids.read_text().split()]
    assert all(psutil.pid_exists(pid) for pid in found), found
    central.wait_for_task(dag_id, run, "linger", "running")
    return run, found


def _assert_gone(pids: list[int], *, wind_down_s: float = 0.5) -> None:
    begin = time.monotonic()
    left = lambda: [pid for pid in pids if psutil.pid_exists(pid) and not _is_zombie(pid)]  # noqa: E731
    try:
        wait_until(lambda: not left(), timeout_s=GONE_WITHIN_S + wind_down_s, what=f"the processes {pids} are gone", every_s=0.05)
    except TimeoutError as error:
        raise AssertionError(f"{error}; left: {[psutil.Process(pid).cmdline() for pid in left()]}") from None
    print(f"gone after {time.monotonic() - begin:.2f} s")


def _is_zombie(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True
