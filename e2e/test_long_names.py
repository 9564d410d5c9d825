"""Ids of 250 characters, the most that Airflow stores."""

import uuid
from collections.abc import Callable

from testkit.processes import wait_until
from testkit.servers.airflow import Airflow
from testkit.worker import Worker

LONGEST = 250
DAG, FIRST, SECOND = (name.ljust(LONGEST, "x") for name in ("long_dag_", "first_task_", "second_task_"))


def test_they_work_from_end_to_end(redundant: Airflow, new_worker: Callable[..., Worker]) -> None:
    new_worker(redundant, "long-names", queues="default", slots=1)
    run = _run(redundant)
    assert "a word of the task with the long name" in redundant.task_log(DAG, run, FIRST)


def test_a_log_that_no_file_can_hold_is_refused_and_holds_up_nothing(central: Airflow, worker: Worker) -> None:
    """Airflow's default template puts `dag_id=` before the id: 257 bytes, where most file systems end at 255."""
    _run(central)
    assert "log_filename_template" in worker.log.read_text()


def _run(central: Airflow) -> str:
    run = f"long_run_{uuid.uuid4().hex}_".ljust(LONGEST, "x")
    central.trigger(DAG, run_id=run)
    assert central.wait_for_run(DAG, run) == "success"
    assert central.xcom(DAG, run, SECOND) == "from a long name to another"
    wait_until(lambda: all(job["ended_at"] for job in central.jobs(run)), timeout_s=15, what="the jobs have ended")
    jobs = central.jobs(run)
    assert [job["task_id"] for job in jobs] == [FIRST, SECOND]
    assert {len(job[name]) for job in jobs for name in ("dag_id", "run_id", "task_id")} == {LONGEST}
    return run
