"""Topic suite: ids of 250 characters, the longest that Airflow stores."""

import uuid
from collections.abc import Callable

from testkit.processes import wait_until
from testkit.servers.airflow import Airflow
from testkit.worker import Worker

LONGEST = 250
DAG, FIRST, SECOND = (name.ljust(LONGEST, "x") for name in ("long_dag_", "first_task_", "second_task_"))


def test_a_dag_with_the_longest_ids_runs(redundant: Airflow, new_worker: Callable[..., Worker]) -> None:
    new_worker(redundant, "long-names", queues="default", slots=1)
    run = _run(redundant)
    assert "a line of the task with the long name" in redundant.task_log(DAG, run, FIRST)


def test_a_log_with_a_too_long_file_name_is_refused_and_delays_nothing(central: Airflow, worker: Worker) -> None:
    """Airflow's default template puts `dag_id=` before the id: 257 bytes, but most file systems allow 255."""
    _run(central)
    assert "log_filename_template" in worker.log.read_text()


def _run(central: Airflow) -> str:
    run = f"long_run_{uuid.uuid4().hex}_".ljust(LONGEST, "x")
    central.trigger(DAG, run_id=run)
    assert central.wait_for_run(DAG, run) == "success"
    assert central.xcom(DAG, run, SECOND) == "from a long name to another"
    wait_until(lambda: all(job["ended_at"] for job in central.jobs(run)), timeout_s=60, what="the jobs have ended")
    jobs = central.jobs(run)
    assert [job["task_id"] for job in jobs] == [FIRST, SECOND]
    assert {len(job[name]) for job in jobs for name in ("dag_id", "run_id", "task_id")} == {LONGEST}
    return run
