"""Topic suite: a task's log is in the UI while the task runs, and complete when it has ended."""

import hashlib
import re
from pathlib import Path

import pytest

from testkit.processes import wait_until
from testkit.servers.airflow import Airflow
from testkit.worker import Worker


def test_each_line_is_shown_before_the_next_is_printed(central: Airflow, worker: Worker, tmp_path: Path) -> None:
    lines = 8
    run = central.trigger("conversing", {"directory": str(tmp_path), "lines": lines})
    central.wait_for_task("conversing", run, "talk", "running")
    for number in range(lines):
        wait_until(
            lambda number=number: f"line {number}: grüße ☃" in central.task_log("conversing", run, "talk"),  # type: ignore[misc]
            timeout_s=60,
            what=f"line {number} is shown",
        )
        assert f"line {number + 1}:" not in central.task_log("conversing", run, "talk")
        (tmp_path / str(number)).touch()
    assert central.wait_for_run("conversing", run) == "success"
    _assert_complete(central, worker, "conversing", run, "talk")


def test_the_ui_names_the_worker_and_never_connects_to_it(central: Airflow, worker: Worker) -> None:
    run = central.trigger("talking", {"lines": 6, "every_s": 0.5})
    central.wait_for_task("talking", run, "talk", "running")
    while_running = central.task_log("talking", run, "talk")
    assert central.wait_for_run("talking", run) == "success"
    for log in (while_running, central.task_log("talking", run, "talk")):
        assert worker.name in log
        assert not re.search(r"Could not read served logs|Failed to fetch log file|http://", log), log


def test_fifty_megabytes_arrive_byte_for_byte(central: Airflow, worker: Worker) -> None:
    run = central.trigger("shouting")
    assert central.wait_for_run("shouting", run) == "success"
    text = _assert_complete(central, worker, "shouting", run, "shout")
    assert len(text) > 50_000_000
    numbers = [int(number) for number in re.findall(rb'"event":"(\d{6}) ', text)]
    assert numbers == list(range(25_000))


@pytest.mark.parametrize(("task", "letter"), [("shell", "y"), ("python", "z")])
def test_bytes_that_are_not_text_and_lines_of_ten_megabytes_are_logged(
    central: Airflow, worker: Worker, mumbling: str, task: str, letter: str
) -> None:
    assert central.task_instance("mumbling", mumbling, task)["state"] == "success"
    text = _assert_complete(
        central, worker, "mumbling", mumbling, task
    ).decode()  # the log is UTF-8 also if other bytes were printed
    assert "caf" in text
    assert " in Latin-1" in text
    assert "after it" in text
    assert text.count(letter * 1_000) == 10_000
    assert "after the long line" in text
    shown = central.task_log("mumbling", mumbling, task)
    assert "after the long line" in shown


@pytest.fixture(scope="module")
def mumbling(central: Airflow, worker: Worker) -> str:
    run = central.trigger("mumbling")
    central.wait_for_run("mumbling", run)
    return run


def _assert_complete(central: Airflow, worker: Worker, dag_id: str, run: str, task: str) -> bytes:
    """Check that central's file, the worker's file and the job's report agree after the report; return the log."""

    def reported() -> dict[str, object] | None:
        [job] = [job for job in central.jobs(run) if job["task_id"] == task]
        return job if job["ended_at"] else None

    job = wait_until(reported, timeout_s=30, what="the job is reported")
    assert isinstance(job, dict)
    [ours] = [path for path in worker.task_logs() if str(job["id"]) in str(path)]
    text = central.log_file(dag_id, run, task).read_bytes()
    digest = hashlib.sha256(text).hexdigest()
    assert (len(text), digest) == (job["log_size"], job["log_sha256"])
    assert digest == hashlib.sha256(ours.read_bytes()).hexdigest()
    return text
