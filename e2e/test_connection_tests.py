"""Topic suite: Airflow's connection tests, run at a worker's site."""

from pathlib import Path
from typing import Any

from testkit.processes import wait_until
from testkit.servers.airflow import Airflow
from testkit.worker import Worker


def _try(central: Airflow, connection_id: str, **connection: Any) -> dict[str, Any]:
    body = {"connection_id": connection_id, "executor": "RemoteExecutor", "queue": "default", **connection}
    token = central.api("POST", "connections/enqueue-test", json=body)["token"]
    result: dict[str, Any] = {}

    def ended() -> bool:
        result.update(central.api("GET", "connections/enqueue-test", headers={"Airflow-Connection-Test-Token": token}))
        return result["state"] in ("success", "failed")

    wait_until(ended, timeout_s=60, what=f"the test of {connection_id} ends", every_s=0.2)
    return result


def test_a_connection_is_tested_at_the_site(central: Airflow, worker: Worker, tmp_path: Path) -> None:
    good = _try(central, "share", conn_type="fs", extra=f'{{"path": "{tmp_path}"}}')
    assert good["state"] == "success", good
    missing = _try(central, "missing_share", conn_type="fs", extra=f'{{"path": "{tmp_path}/nothing"}}', password="pass-word-77")
    assert missing["state"] == "failed", missing
    assert str(tmp_path) in missing["result_message"]
    # Airflow has the result before the job's report has arrived.
    wait_until(
        lambda: (
            {(job["state"], job["worker"]) for job in central.remote_api("jobs") if job["kind"] == "connection-test"}
            == {("succeeded", worker.name)}
        ),
        timeout_s=30,
        what="the jobs of both tests have succeeded",
    )
    for log in (central.log_folder / "connection_tests").iterdir():
        assert "pass-word-77" not in log.read_text()
    assert not any("pass-word-77" in log.read_text() for log in worker.task_logs())


def test_a_test_that_no_worker_can_run_reports_why(central: Airflow, worker: Worker) -> None:
    result = _try(central, "nonsense", conn_type="no_such_type")
    assert result["state"] == "failed"
    assert "no_such_type" in result["result_message"]
