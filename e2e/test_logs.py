"""Topic suite: a task's log is in the UI while the task runs, and complete when it has ended."""

import hashlib
import re
import statistics
import time

import pytest

from testkit.processes import wait_until
from testkit.servers.airflow import Airflow
from testkit.worker import Worker

LIVE_WITHIN_S = 1.0
"""From the printing of a line to the UI's answer that contains it, for at least half of the lines."""
NOISE_S = 2.0
"""The additional delay of a single line on a busy computer."""


def test_lines_are_shown_within_a_second_of_being_printed(central: Airflow, worker: Worker) -> None:
    lines = 20
    run = central.trigger("talking", {"lines": lines, "every_s": 0.3})
    central.wait_for_task("talking", run, "talk", "running")
    delays: dict[int, float] = {}
    deadline = time.monotonic() + 60
    while len(delays) < lines and time.monotonic() < deadline:
        log = central.task_log("talking", run, "talk")
        now = time.time()
        for number, said_at in re.findall(r"line (\d+): grüße ☃ said at ([\d.]+) s", log):
            delays.setdefault(int(number), now - float(said_at))
        time.sleep(0.05)
    assert sorted(delays) == list(range(lines))
    assert statistics.median(delays.values()) < LIVE_WITHIN_S, delays
    assert max(delays.values()) < LIVE_WITHIN_S + NOISE_S, delays
    assert central.wait_for_run("talking", run) == "success"
    _assert_complete(central, worker, "talking", run, "talk")


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
