"""Schedulers die, are replaced, are two: no remote task is lost and none runs twice."""

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
    """A run whose task no worker takes, begun before all else here, so that nobody has to wait for its end."""
    return redundant.trigger("unserved"), time.monotonic()


def test_what_runs_and_what_is_queued_outlives_the_scheduler(redundant: Airflow, crew: Worker, tmp_path: Path) -> None:
    run = redundant.trigger("counted", {"directory": str(tmp_path), "count": COUNT})
    # One more is the unserved one: as many as may be with the executor.
    wait_until(lambda: len(redundant.jobs(run)) == 1 + COUNT - 1, timeout_s=30, what="some run, some are queued")
    wait_until(lambda: len(_starts(tmp_path)) == SLOTS, timeout_s=30, what="the worker is full")
    [dead] = _living(redundant)
    redundant.kill_process("scheduler")
    # Nobody schedules now. A task ends, and the worker takes what is queued.
    (tmp_path / f"go-{_starts(tmp_path)[0]}").touch()
    wait_until(lambda: len(_starts(tmp_path)) == SLOTS + 1, timeout_s=30, what="the worker goes on without a scheduler")
    wait_until(lambda: _ended(redundant, run), timeout_s=10, what="the end of the task is known")
    # What ended well on its own has nobody left to tell: its task is a success already, and no new scheduler asks for it.
    alone = _ended(redundant, run)
    redundant.start_process("scheduler")
    wait_until(lambda: dead not in _living(redundant), timeout_s=60, what="the old scheduler is known to be dead", every_s=0.3)
    wait_until(lambda: _all_adopted(redundant, run), timeout_s=30, what="a new scheduler has adopted what was left", every_s=0.3)
    (tmp_path / "go").touch()
    assert redundant.wait_for_run("counted", run) == "success"
    _assert_each_ran_once(redundant, run, _starts(tmp_path), COUNT, untold=alone)


@pytest.fixture(scope="module")
def second_scheduler(redundant: Airflow) -> None:
    # One log server each, or the second would find the port taken.
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
    # As above: of a success that it has not heard of yet, nobody asks when it is dead.
    wait_until(lambda: not _ended(redundant, run), timeout_s=30, what="the end of the first task is heard")
    redundant.kill_process("scheduler")
    wait_until(lambda: len(_living(redundant)) == 1, timeout_s=60, what="one scheduler is known to be dead", every_s=0.3)
    wait_until(lambda: _all_adopted(redundant, run), timeout_s=60, what="the other has adopted its tasks", every_s=0.3)
    (tmp_path / "go").touch()
    assert redundant.wait_for_run("counted", run) == "success"
    _assert_each_ran_once(redundant, run, _starts(tmp_path), COUNT)


def test_a_task_that_no_worker_takes_is_failed_after_task_queued_timeout(redundant: Airflow, unserved: tuple[str, float]) -> None:
    run, begun_at = unserved
    left_s = QUEUED_TIMEOUT_S - (time.monotonic() - begun_at)
    assert redundant.wait_for_run("unserved", run, timeout_s=max(left_s, 0) + 20) == "failed"
    assert redundant.task_instance("unserved", run, "wait")["state"] == "failed"
    wait_until(lambda: [job["state"] for job in redundant.jobs(run)] == ["revoked"], timeout_s=5, what="its job is taken back")


def _starts(directory: Path) -> list[int]:
    starts = directory / "starts"
    return [int(line) for line in starts.read_text().split()] if starts.exists() else []


def _ended(central: Airflow, run: str) -> set[str]:
    """Return the jobs that ended and whose end no scheduler has heard."""
    return {job["id"] for job in central.jobs(run) if job["ended_at"] and not job["settled_at"]}


def _living(central: Airflow) -> set[int]:
    """Return the schedulers that Airflow believes to be alive."""
    return {row["id"] for row in central.query("SELECT id FROM job WHERE job_type = 'SchedulerJob' AND state = 'running'")}


def _all_adopted(central: Airflow, run: str) -> bool:
    """Say whether every task that is with an executor is with one of a scheduler that lives."""
    orphans = central.query(
        "SELECT ti.id FROM task_instance ti LEFT JOIN job ON job.id = ti.queued_by_job_id "
        "WHERE ti.run_id = :run AND ti.state IN ('queued', 'running') AND job.state IS DISTINCT FROM 'running'",
        run=run,
    )
    return not orphans


def _assert_each_ran_once(central: Airflow, run: str, starts: list[int], count: int, *, untold: Collection[str] = ()) -> None:
    assert sorted(starts) == list(range(count))
    tasks = central.task_instances("counted", run)
    assert {task["try_number"] for task in tasks} == {1}
    jobs = central.jobs(run)
    assert len(jobs) == 1 + count
    assert {job["epoch"] for job in jobs} == {1}
    # The executor that lives heard of every end, also of those that another one handed in.
    left = lambda: [  # noqa: E731
        job for job in central.jobs(run) if not job["settled_at"] and job["id"] not in untold
    ]
    try:
        wait_until(lambda: not left(), timeout_s=15, what="all ends are told")
    except TimeoutError as error:
        raise AssertionError(f"{error}: {left()}") from None
    assert {job["state"] for job in central.jobs(run)} == {"succeeded"}
