"""Topic suite: callbacks and operator links run after a task's code and reach central, which accepts no call after the state."""

import pytest

from testkit.servers.airflow import Airflow
from testkit.worker import Worker


@pytest.mark.parametrize(("task_id", "state"), [("succeeds", "success"), ("fails", "failed"), ("skips", "skipped")])
def test_a_callback_reads_a_variable_and_pushes_an_xcom_and_a_link_is_stored(
    central: Airflow, worker: Worker, task_id: str, state: str
) -> None:
    central.api("POST", "variables", json={"key": f"e2e_after_{task_id}", "value": "still there"})
    run = central.trigger("after_the_end")
    central.wait_for_run("after_the_end", run)
    assert central.task_instance("after_the_end", run, task_id)["state"] == state
    assert central.xcom("after_the_end", run, task_id, "said") == "still there"
    assert central.xcom("after_the_end", run, task_id, "a_link") == "https://example.com"


def test_a_deferred_tasks_link_is_stored_and_its_log_is_complete(central: Airflow, worker: Worker) -> None:
    run = central.trigger("after_a_deferral")
    assert central.wait_for_run("after_a_deferral", run) == "success"
    assert central.xcom("after_a_deferral", run, "goes_away", "a_link") == "https://example.com"
    log = central.task_log("after_a_deferral", run, "goes_away")
    assert "line 499 before" in log
    assert "back again" in log
