"""Topic suite: schedulers are killed, replaced and doubled; no remote task is lost or runs twice."""

import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

import pytest

from testkit.processes import free_port, wait_until
from testkit.servers.airflow import Airflow
from testkit.worker import Worker

SLOTS = 2
COUNT = 4
QUEUED_TIMEOUT_S = 40


@pytest.fixture(scope="module")
def crew(redundant: Airflow, new_worker: Callable[..., Worker]) -> Iterator[Worker]:
    worker = new_worker(redundant, "crew", queues="crew", slots=SLOTS)
    yield worker
    worker.stop()


@pytest.fixture(scope="module", autouse=True)
def unserved(redundant: Airflow) -> tuple[str, float]:
    """Start a run whose task no worker takes before all other tests, so that its timeout passes during the other tests."""
    return redundant.trigger("unserved"), time.monotonic()


def test_running_and_queued_tasks_outlive_the_scheduler(redundant: Airflow, crew: Worker, tmp_path: Path) -> None:
    run = redundant.trigger("counted", {"directory": str(tmp_path), "count": COUNT})
    # With the unserved task, these are all that `parallelism` allows.
    wait_until(lambda: len(redundant.jobs(run)) == 1 + COUNT - 1, timeout_s=30, what="some run, some are queued")
    wait_until(lambda: len(_starts(tmp_path)) == SLOTS, timeout_s=30, what="the worker is full")
    [dead] = _living(redundant)
    redundant.kill_process("scheduler")
    # No scheduler runs now. A task ends, and the worker takes a queued one.
    (tmp_path / f"go-{_starts(tmp_path)[0]}").touch()
    wait_until(lambda: len(_starts(tmp_path)) == SLOTS + 1, timeout_s=30, what="the worker continues without a scheduler")
    wait_until(lambda: _ended(redundant, run), timeout_s=60, what="the end of the task is known")
    # Jobs that succeeded in the meantime are never settled: their tasks are successes already, so no new scheduler adopts them.
    unsettled = _ended(redundant, run)
    redundant.start_process("scheduler")
    wait_until(
        lambda: dead not in _living(redundant),
        timeout_s=60,
        what="Airflow has detected the end of the old scheduler",
        every_s=0.3,
    )
    wait_until(
        lambda: _all_adopted(redundant, run), timeout_s=30, what="a new scheduler has adopted the remaining tasks", every_s=0.3
    )
    (tmp_path / "go").touch()
    assert redundant.wait_for_run("counted", run) == "success"
    _assert_each_ran_once(redundant, run, _starts(tmp_path), COUNT, unsettled=unsettled)


@pytest.fixture(scope="module")
def second_scheduler(redundant: Airflow) -> None:
    # Each needs its own port for the log server.
    redundant.start_process(
        "scheduler", called="scheduler-2", settings={"AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(free_port())}
    )
    wait_until(lambda: len(_living(redundant)) == 2, timeout_s=60, what="two schedulers live", every_s=0.3)


@pytest.mark.usefixtures("second_scheduler")
def test_two_schedulers_at_once_share_the_work(redundant: Airflow, crew: Worker, tmp_path: Path) -> None:
    runs: dict[str, Path] = {}
    for number in range(3):
        directory = tmp_path / str(number)
        directory.mkdir()
        (directory / "go").touch()
        runs[redundant.trigger("counted", {"directory": str(directory), "count": COUNT})] = directory
    for run, directory in runs.items():
        assert redundant.wait_for_run("counted", run) == "success"
        _assert_each_ran_once(redundant, run, _starts(directory), COUNT)
    assert redundant.is_running("scheduler") and redundant.is_running("scheduler-2")


@pytest.mark.usefixtures("second_scheduler")
def test_when_one_of_two_schedulers_dies_the_other_adopts_its_tasks(redundant: Airflow, crew: Worker, tmp_path: Path) -> None:
    run = redundant.trigger("counted", {"directory": str(tmp_path), "count": COUNT})
    wait_until(lambda: len(_starts(tmp_path)) == SLOTS, timeout_s=30, what="the worker is full")
    # As above: a success that the killed scheduler has not settled would never be settled.
    wait_until(lambda: not _ended(redundant, run), timeout_s=30, what="the end of the first task is settled")
    redundant.kill_process("scheduler")
    wait_until(
        lambda: len(_living(redundant)) == 1, timeout_s=60, what="Airflow has detected the end of one scheduler", every_s=0.3
    )
    wait_until(lambda: _all_adopted(redundant, run), timeout_s=60, what="the other has adopted its tasks", every_s=0.3)
    (tmp_path / "go").touch()
    assert redundant.wait_for_run("counted", run) == "success"
    _assert_each_ran_once(redundant, run, _starts(tmp_path), COUNT)


def test_a_task_that_no_worker_takes_is_failed_after_task_queued_timeout(redundant: Airflow, unserved: tuple[str, float]) -> None:
    run, begun_at = unserved
    left_s = QUEUED_TIMEOUT_S - (time.monotonic() - begun_at)
    assert redundant.wait_for_run("unserved", run, timeout_s=max(left_s, 0) + 20) == "failed"
    assert redundant.task_instance("unserved", run, "wait")["state"] == "failed"
    wait_until(lambda: [job["state"] for job in redundant.jobs(run)] == ["revoked"], timeout_s=60, what="its job is revoked")


def _starts(directory: Path) -> list[int]:
    starts = directory / "starts"
    return [int(line) for line in starts.read_text().split()] if starts.exists() else []


def _ended(central: Airflow, run: str) -> set[str]:
    """Return the jobs that have ended and that no scheduler has settled."""
    return {job["id"] for job in central.jobs(run) if job["ended_at"] and not job["settled_at"]}


def _living(central: Airflow) -> set[int]:
    """Return the schedulers that Airflow considers alive."""
    return {row["id"] for row in central.query("SELECT id FROM job WHERE job_type = 'SchedulerJob' AND state = 'running'")}


def _all_adopted(central: Airflow, run: str) -> bool:
    """Return whether every queued or running task belongs to a living scheduler."""
    orphans = central.query(
        "SELECT ti.id FROM task_instance ti LEFT JOIN job ON job.id = ti.queued_by_job_id "
        "WHERE ti.run_id = :run AND ti.state IN ('queued', 'running') AND job.state IS DISTINCT FROM 'running'",
        run=run,
    )
    return not orphans


def _assert_each_ran_once(central: Airflow, run: str, starts: list[int], count: int, *, unsettled: Collection[str] = ()) -> None:
    assert sorted(starts) == list(range(count))
    tasks = central.task_instances("counted", run)
    assert {task["try_number"] for task in tasks} == {1}
    jobs = central.jobs(run)
    assert len(jobs) == 1 + count
    assert {job["epoch"] for job in jobs} == {1}
    # The living executor has settled every job, also those that another one submitted.
    left = lambda: [  # noqa: E731
        job for job in central.jobs(run) if not job["settled_at"] and job["id"] not in unsettled
    ]
    try:
        wait_until(lambda: not left(), timeout_s=60, what="all jobs are settled")
    except TimeoutError as error:
        raise AssertionError(f"{error}: {left()}") from None
    assert {job["state"] for job in central.jobs(run)} == {"succeeded"}
