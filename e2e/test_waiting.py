"""Topic suite: deferred and rescheduled tasks resume on the worker."""

from pathlib import Path

from testkit.servers.airflow import Airflow
from testkit.worker import Worker


def test_deferred_tasks_resume(central: Airflow, worker: Worker) -> None:
    run = central.trigger("deferred")
    assert central.wait_for_run("deferred", run) == "success"
    assert central.xcom("deferred", run, "wait")["kept"] == "before"
    log = central.task_log("deferred", run, "wait")
    assert "before the wait" in log
    assert "after the wait" in log


def test_a_rescheduling_sensor_resumes(central: Airflow, worker: Worker, tmp_path: Path) -> None:
    run = central.trigger("rescheduled", {"directory": str(tmp_path)})
    assert central.wait_for_run("rescheduled", run) == "success"
    assert (tmp_path / "pokes").read_text() == "..."
