"""Topic suite, promises 4 (reboot), 11 and 12: how a worker, its computer and its tasks' processes end."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import psutil
import pytest

from e2e.conftest import NewWorker
from testkit.processes import wait_until
from testkit.servers.airflow import Airflow
from testkit.worker import Worker


@pytest.fixture(scope="module")
def worker(central: Airflow, new_worker: NewWorker) -> Worker:
    return new_worker(central, "endings", queues="endings", slots=4)


def test_sigterm_waits_for_running_jobs_and_takes_no_new_ones(central: Airflow, worker: Worker, tmp_path: Path) -> None:
    """11. SIGTERM drains; the next daemon runs what is queued in the meantime."""
    (tmp_path / "short").touch()
    run, _ = begin(central, tmp_path)
    os.kill(worker.pid, signal.SIGTERM)
    wait_until(lambda: status(worker)["phase"] == "draining", timeout_s=60, what="it drains")
    later = tmp_path / "later"
    later.mkdir()
    (later / "short").touch()
    queued = central.trigger("patient", {"directory": str(later)})
    wait_until(lambda: not worker.is_running(), timeout_s=30, what="the daemon has ended")
    assert central.wait_for_run("patient", run) == "success"
    assert central.xcom("patient", run, "wait") == "first"
    assert not (later / "tries").exists()
    worker.start()
    assert central.wait_for_run("patient", queued) == "success"
    assert central.xcom("patient", queued, "wait") == "first"


def test_a_second_sigterm_ends_the_daemon_and_the_next_one_adopts_the_jobs(
    central: Airflow, worker: Worker, tmp_path: Path
) -> None:
    """11. No job is killed silently."""
    (tmp_path / "short").touch()
    run, pid = begin(central, tmp_path)
    os.kill(worker.pid, signal.SIGTERM)
    wait_until(lambda: status(worker)["phase"] == "draining", timeout_s=60, what="it drains")
    os.kill(worker.pid, signal.SIGTERM)
    wait_until(lambda: not worker.is_running(), timeout_s=60, what="the daemon has ended")
    assert psutil.pid_exists(pid)
    worker.start()
    assert central.wait_for_run("patient", run) == "success"
    assert (tmp_path / "tries").read_text() == f"{pid}\n"


def test_a_task_that_ignores_sigterm_and_its_daemon_are_killed(central: Airflow, worker: Worker, tmp_path: Path) -> None:
    """12. The task's whole process tree ends."""
    run = central.trigger("daemonising", {"directory": str(tmp_path)})
    wait_until((tmp_path / "pids").exists, timeout_s=60, what="the task and its daemon run")
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    assert len(pids) == 2 and all(psutil.pid_exists(pid) for pid in pids)
    central.set_task_state("daemonising", run, "linger", "failed")
    wait_until(lambda: not any(psutil.pid_exists(pid) for pid in pids), timeout_s=60, what="both have ended")
    wait_until(lambda: central.jobs(run)[0]["ended_at"], timeout_s=20, what="the job has ended")
    (job,) = central.jobs(run)
    wait_until(lambda: closed(worker, job["id"]), timeout_s=20, what="the worker has sent everything")
    log = next(worker.state.glob(f"jobs/{job['id']}.*/task.log")).read_text()
    assert f"({pids[1]})" in log and "Ended processes that the job left running" in log
    assert worker.is_running()


def test_a_task_that_ended_with_a_reboot_is_reported_once_and_retried(central: Airflow, worker: Worker, tmp_path: Path) -> None:
    """4. A reboot: all processes have ended at once, and the files on disk are from an earlier boot."""
    run, pid = begin(central, tmp_path)
    (job,) = central.jobs(run)
    local_log = worker.state / f"jobs/{job['id']}.{job['epoch']}/task.log"
    wait_until(lambda: "the try has begun" in local_log.read_text(), timeout_s=20, what="it has printed that")
    worker.kill()
    for stray in {*worker.stray_pids(), pid}:  # the task's title has overwritten its environment
        os.kill(stray, signal.SIGKILL)
    wait_until(lambda: not psutil.pid_exists(pid), timeout_s=60, what="all have ended")
    (note,) = worker.state.glob(f"jobs/{job['id']}.*/shim.json")
    shim = json.loads(note.read_bytes())
    earlier = {"pid": shim["pid"], "start_time": shim["start_time"], "birth_mark": "00000000-earlier-boot:1"}
    note.write_text(json.dumps(earlier))

    worker.start()
    assert central.wait_for_run("patient", run) == "success"
    assert central.xcom("patient", run, "wait") == "second"
    assert central.task_instance("patient", run, "wait")["try_number"] == 2
    assert len((tmp_path / "tries").read_text().splitlines()) == 2
    first, second = central.jobs(run)
    assert (first["state"], second["state"]) == ("failed", "succeeded")
    assert "died with the machine, which was restarted" in first["reason"]
    log = central.log_file("patient", run, "wait", 1).read_text()
    assert log.index("the try has begun") < log.index("died with the machine")
    assert log.count("died with the machine") == 1


def begin(central: Airflow, directory: Path) -> tuple[str, int]:
    """Start the Dag `patient`; return its run and its task's pid."""
    run = central.trigger("patient", {"directory": str(directory)})
    wait_until((directory / "tries").exists, timeout_s=60, what="the task runs")
    wait_until(lambda: (directory / "tries").read_text().strip(), timeout_s=60, what="it has written its pid")
    return run, int((directory / "tries").read_text())


def status(worker: Worker) -> dict[str, object]:
    return dict(json.loads((worker.state / "status.json").read_bytes()))


def closed(worker: Worker, job_id: str) -> bool:
    return bool(list(worker.state.glob(f"jobs/{job_id}.*/closed.json")))
