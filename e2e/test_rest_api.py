"""Topic suite: the REST API in real Airflow; Airflow's login decides the users' rights, and their intents reach real workers."""

import json
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from testkit.processes import wait_until
from testkit.servers.airflow import Airflow
from testkit.worker import Worker


def _rest_client(central: Airflow, user: str) -> httpx.Client:
    return httpx.Client(base_url=f"{central.url}/remote/ui/v1", headers=central.client(user).headers, timeout=30)


@pytest.fixture(scope="module")
def op(central: Airflow) -> httpx.Client:
    return _rest_client(central, "op")


@pytest.fixture(scope="module")
def viewer(central: Airflow) -> httpx.Client:
    return _rest_client(central, "viewer")


def _ok(answer: httpx.Response, status: int = 200) -> Any:
    assert answer.status_code == status, answer.text
    return answer.json() if answer.content else None


def test_nothing_is_returned_without_a_login(central: Airflow, worker: Worker) -> None:
    credential = json.loads((worker.state / "credential.json").read_bytes())["credential"]
    for token in (None, "rubbish", "e.e.e", credential):
        headers = {"authorization": f"Bearer {token}"} if token else {}
        for path in ("workers", "me", "openapi.json", "nothing"):
            answer = httpx.get(f"{central.url}/remote/ui/v1/{path}", headers=headers)
            assert answer.status_code == (404 if path == "nothing" else 401), (token, path, answer.text)


def test_a_browsers_session_is_a_login_too(central: Airflow) -> None:
    login = {"username": "viewer", "password": central.users["viewer"].password}
    token = httpx.post(f"{central.url}/auth/token", json=login).json()["access_token"]
    answer = httpx.get(f"{central.url}/remote/ui/v1/me", cookies={"_token": token})
    assert _ok(answer) == {"name": "viewer", "may_manage": False}


def test_a_viewer_sees_and_changes_nothing(viewer: httpx.Client, worker: Worker) -> None:
    row = _ok(viewer.get(f"/workers/{worker.name}"))
    assert (row["presence"], row["intent"]) == ("online", "serve")
    answer = viewer.put(f"/workers/{worker.name}/intent", json={"mode": "pause"})
    assert answer.status_code == 403 and "may not manage workers" in answer.json()["detail"]
    assert viewer.get("/enrolment-tokens").status_code == viewer.get("/audit").status_code == 403
    assert _ok(viewer.get(f"/workers/{worker.name}"))["intent"] == "serve"


def test_an_operator_lets_a_worker_join_pauses_it_and_sees_its_job(
    central: Airflow, op: httpx.Client, viewer: httpx.Client, tmp_path: Path
) -> None:
    made = _ok(op.post("/enrolment-tokens", json={"queues": ["by-hand"], "name_pattern": "hand-*"}), 201)
    worker = Worker(tmp_path, name="hand-1", central=central.url, token=made["token"], bundles={}).start()
    try:
        _pause_and_resume(worker, op, viewer)
    finally:
        worker.stop()


def _pause_and_resume(worker: Worker, op: httpx.Client, viewer: httpx.Client) -> None:
    wait_until(lambda: _presence(viewer, "hand-1") == "online", timeout_s=30, what="the fleet shows it online")
    assert _ok(op.get("/enrolment-tokens"))["items"][0]["uses_left"] == 0

    paused = _ok(op.put("/workers/hand-1/intent", json={"mode": "pause", "reason": "patching"}))
    assert (paused["intent"], paused["intent_by"], paused["intent_reason"]) == ("pause", "op", "patching")
    wait_until(lambda: "patching" in worker.tail(), timeout_s=60, what="the worker receives the pause and its reason")
    wait_until(
        lambda: _ok(viewer.get("/workers/hand-1"))["intent_heard"],
        timeout_s=60,
        what="central knows that the worker has the intent",
    )
    _ok(op.put("/workers/hand-1/queues", json={"queues": ["default", "by-hand"]}))
    _ok(op.put("/workers/hand-1/intent", json={"mode": "pause", "lasts_s": 1}))
    wait_until(lambda: _ok(viewer.get("/workers/hand-1"))["intent"] == "serve", timeout_s=30, what="the pause ends by itself")

    audit = _ok(op.get("/audit", params={"worker": "hand-1", "kind": "action"}))["items"]
    assert [entry["actor"] for entry in audit] == ["central", "op", "op", "op"]


def test_a_running_job_is_shown_with_its_task_and_worker(
    central: Airflow, viewer: httpx.Client, worker: Worker, tmp_path: Path
) -> None:
    run = central.trigger("lingering", {"directory": str(tmp_path)})
    wait_until((tmp_path / "pids").exists, timeout_s=60, what="the task runs")
    [job] = _ok(viewer.get("/jobs", params={"run_id": run, "state": "running"}))["items"]
    assert (job["dag_id"], job["task_id"], job["worker"]) == ("lingering", "linger", worker.name)
    assert _ok(viewer.get("/fleet", params={"text": worker.name}))["used_slots"] >= 1
    central.set_task_state("lingering", run, "linger", "success")

    def has_ended() -> bool:
        return _ok(viewer.get(f"/jobs/{job['id']}"))["state"] != "running"

    wait_until(has_ended, timeout_s=20, what="it is shown as ended")


def test_the_reason_why_a_task_waits_is_shown(central: Airflow, viewer: httpx.Client) -> None:
    run = central.trigger("unserved")
    wait_until(lambda: central.jobs(run), timeout_s=30, what="a job waits")
    [job] = _ok(viewer.get("/jobs", params={"run_id": run}))["items"]
    assert f"No worker serves the queue {job['queue']!r}" in _ok(viewer.get(f"/jobs/{job['id']}/waiting"))["why"]
    [queue] = [row for row in _ok(viewer.get("/queues"))["items"] if row["queue"] == job["queue"]]
    assert (queue["is_unserved"], queue["workers"]) == (True, 0)
    central.delete_run("unserved", run)


def test_stopping_a_running_job_fails_its_task_and_ends_its_processes(
    central: Airflow, op: httpx.Client, viewer: httpx.Client, worker: Worker, tmp_path: Path
) -> None:
    run = central.trigger("lingering", {"directory": str(tmp_path)})
    wait_until((tmp_path / "pids").exists, timeout_s=60, what="the task runs")
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    [job] = _ok(op.get("/jobs", params={"run_id": run, "state": "running"}))["items"]
    assert viewer.post(f"/jobs/{job['id']}/stop", json={}).status_code == 403
    _ok(op.post(f"/jobs/{job['id']}/stop", json={"reason": "wrong data"}), 202)
    wait_until(lambda: not any(psutil.pid_exists(pid) for pid in pids), timeout_s=20, what="its processes are gone")
    assert central.wait_for_run("lingering", run) == "failed"
    ended = _ok(op.get(f"/jobs/{job['id']}"))
    assert ended["state"] == "revoked" and ended["reason"].startswith("stopped by op: wrong data")


def test_a_waiting_job_is_stopped_too(central: Airflow, op: httpx.Client) -> None:
    run = central.trigger("unserved")
    wait_until(lambda: central.jobs(run), timeout_s=30, what="a job waits")
    [job] = _ok(op.get("/jobs", params={"run_id": run}))["items"]
    assert _ok(op.post(f"/jobs/{job['id']}/stop", json={}), 202)["reason"] == "stopped by op"
    assert central.wait_for_run("unserved", run) == "failed"


def _presence(client: httpx.Client, name: str) -> str | None:
    answer = client.get(f"/workers/{name}")
    return str(answer.json()["presence"]) if answer.status_code == 200 else None
