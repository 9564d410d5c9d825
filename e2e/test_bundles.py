"""Topic suite: Dag code that the worker doesn't have."""

from testkit.servers.airflow import Airflow
from testkit.worker import Worker


def test_a_missing_bundle_fails_the_task_and_the_log_says_what_to_do(central: Airflow, worker: Worker) -> None:
    run = central.trigger("unreachable")
    assert central.wait_for_run("unreachable", run) == "failed"
    log = central.task_log("unreachable", run, "run")
    assert "elsewhere" in log, log
    assert worker.name in log, log
    assert "bundles" in log, log
    assert "this must not run" not in log
