"""A task's log is in the UI while the task runs, and whole when it has ended."""

from pathlib import Path

from testkit.airflow import Airflow
from testkit.processes import wait_until
from testkit.worker import Worker


def test_the_log_grows_while_the_task_runs(central: Airflow, worker: Worker) -> None:
    run = central.trigger("talking", {"lines": 24, "every_s": 0.5})
    central.wait_for_task("talking", run, "talk", "running")

    def lines() -> int:
        return central.task_log("talking", run, "talk").count("grüße ☃")

    first = wait_until(lines, timeout_s=10, what="the first lines are shown", every_s=0.2)
    wait_until(lambda: lines() > int(str(first)) + 3, timeout_s=10, what="more lines are shown", every_s=0.2)
    assert central.task_instance("talking", run, "talk")["state"] == "running"
    assert central.wait_for_run("talking", run) == "success"
    _assert_whole(central, worker, "talking", run, "talk")
    assert lines() == 24


def test_a_large_log_arrives_byte_for_byte(central: Airflow, worker: Worker) -> None:
    run = central.trigger("shouting")
    assert central.wait_for_run("shouting", run) == "success"
    text = _assert_whole(central, worker, "shouting", run, "shout")
    assert text.count(b'"event"') >= 15_000


def _assert_whole(central: Airflow, worker: Worker, dag_id: str, run: str, task: str) -> bytes:
    """Central's file and the worker's are the same, once the job's log and report have been acknowledged."""
    [job] = [job for job in central.remote_cli("jobs", "list") if job["run_id"] == run]
    theirs = central.log_file(dag_id, run, task)
    [ours] = [path for path in worker.task_logs() if str(job["id"]) in str(path)]
    same = lambda: _read(theirs) == _read(ours)  # noqa: E731
    wait_until(same, timeout_s=15, what=f"{theirs} has what {ours} has", every_s=0.2)
    return _read(ours)


def _read(path: Path) -> bytes:
    return path.read_bytes() if path.exists() else b""
