"""Topic suite: callbacks of Dag runs (deadline alerts) on a worker."""

from testkit.processes import wait_until
from testkit.servers.airflow import Airflow
from testkit.worker import Worker


def _job(central: Airflow, dag_id: str) -> dict[str, object]:
    found = wait_until(
        lambda: [
            job
            for job in central.remote_api("jobs")
            if (job["kind"], job["dag_id"]) == ("callback", dag_id) and job["state"] in ("succeeded", "failed", "lost")
        ],
        timeout_s=60,
        what=f"the callback of {dag_id} ends",
        every_s=1,
    )
    assert isinstance(found, list)
    return dict(found[0])


def test_the_callback_of_a_late_run_runs_at_the_site_of_its_tasks(central: Airflow, worker: Worker) -> None:
    central.api("POST", "connections", json={"connection_id": "deadline_host", "conn_type": "http", "host": "alerts.example"})
    run = central.trigger("late")
    job = _job(central, "late")
    assert (job["state"], job["queue"], job["worker"]) == ("succeeded", "default", worker.name)
    assert central.wait_for_run("late", run) == "success"
    [log] = (central.log_folder / "executor_callbacks/late").rglob(str(job["id"]))
    assert log.read_text().count(f"it is late: sent from {worker.name} to alerts.example") == 1


def test_a_failing_callback_is_recorded_as_failed(central: Airflow, worker: Worker) -> None:
    run = central.trigger("late_and_failing")
    job = _job(central, "late_and_failing")
    assert job["state"] == "failed"
    assert "stumble" in str(job["reason"])
    assert central.wait_for_run("late_and_failing", run) == "success"
