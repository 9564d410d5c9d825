"""What somebody without the right credential gets from `/remote/v1`: nothing."""

import uuid
from pathlib import Path

import httpx
import pytest
from airflow_remote_protocol.tokens import TokenKind, make_token

from testkit.airflow import Airflow
from testkit.processes import wait_until
from testkit.worker import Worker

MARKER, PROBLEM = "airflow-remote-protocol", "airflow-remote-problem"
JOB = "00000000-0000-0000-0000-000000000000"
ROUTES = [
    ("POST", "enrol"),
    ("POST", "session"),
    ("POST", "poll"),
    ("POST", f"jobs/{JOB}/accept"),
    ("POST", f"jobs/{JOB}/decline"),
    ("POST", f"jobs/{JOB}/report"),
    ("POST", f"jobs/{JOB}/log?offset=0"),
    ("PATCH", f"jobs/{JOB}/execution/task-instances/{JOB}/run"),
    ("GET", f"jobs/{JOB}/execution/connections/postgres_default"),
    ("GET", f"jobs/{JOB}/execution/variables/secret"),
    ("GET", "ping"),
    ("POST", "leave"),
    ("GET", ""),
    ("GET", "docs"),
    ("GET", "openapi.json"),
    ("GET", "no/such/thing"),
]


@pytest.mark.parametrize("credential", ["none", "rubbish", "a worker's that never was", "an Airflow admin's"])
def test_no_route_answers_without_its_credential(central: Airflow, credential: str) -> None:
    bearer = {
        "none": None,
        "rubbish": "rubbish",
        "a worker's that never was": make_token(TokenKind.WORKER, bytes(32)),
        "an Airflow admin's": central.client().headers["authorization"].removeprefix("Bearer "),
    }[credential]
    headers = {MARKER: "1.0"} | ({"authorization": f"Bearer {bearer}"} if bearer else {})
    with httpx.Client(base_url=f"{central.url}/remote/v1/", headers=headers) as client:
        for method, path in ROUTES:
            answer = client.request(method, path, content=b"{}")
            assert answer.status_code in (401, 403), f"{method} {path}: {answer.status_code} {answer.text[:200]}"
            assert answer.headers.get(MARKER), f"{method} {path} does not say that it is central's word"
            assert answer.headers.get(PROBLEM), f"{method} {path} names no problem"


def test_an_enrolment_token_is_good_for_one_worker(central: Airflow) -> None:
    token = central.enrolment_token(queues="nobody", name_pattern="once-*")
    headers = {MARKER: "1.0", "authorization": f"Bearer {token}"}
    url = f"{central.url}/remote/v1/enrol"
    assert httpx.post(url, json={"name": "other"}, headers=headers).status_code in (400, 403, 409, 422)
    assert httpx.post(url, json={"name": "once-1"}, headers=headers).status_code == 201
    assert httpx.post(url, json={"name": "once-2"}, headers=headers).status_code == 403


def test_a_worker_cannot_touch_another_workers_job(central: Airflow, worker: Worker, tmp_path: Path) -> None:
    run = central.trigger("lingering", {"directory": str(tmp_path)})
    wait_until((tmp_path / "pids").exists, timeout_s=60, what="the task runs")
    [job] = [job for job in central.remote_cli("jobs", "list") if job["run_id"] == run]
    task = central.task_instance("lingering", run, "linger")

    stranger = _stranger(central)
    base = f"jobs/{job['id']}"
    for epoch in ("1", str(job.get("epoch", 1)), "999"):
        epoch_header = {"airflow-remote-epoch": epoch}
        for method, path, body in [
            ("POST", f"{base}/accept", b""),
            ("POST", f"{base}/report", b'{"outcome": "failed", "exit_code": 1, "log_size": 0}'),
            ("POST", f"{base}/log?offset=0", b"not its words\n"),
            ("GET", f"{base}/execution/variables/anything", b""),
            ("GET", f"{base}/execution/connections/anything", b""),
            ("PUT", f"{base}/execution/task-instances/{task['id']}/heartbeat", b"{}"),
            ("PATCH", f"{base}/execution/task-instances/{task['id']}/state", b'{"state": "failed"}'),
        ]:
            answer = stranger.request(method, path, content=body, headers=epoch_header)
            assert answer.status_code in (400, 403, 404, 409), f"{method} {path}: {answer.status_code} {answer.text[:200]}"
            assert answer.headers.get(PROBLEM), f"{method} {path} got past our own door: {answer.text[:200]}"

    assert central.task_instance("lingering", run, "linger")["state"] == "running"
    assert "not its words" not in central.task_log("lingering", run, "linger")
    central.set_task_state("lingering", run, "linger", "success")
    assert central.wait_for_run("lingering", run) == "success"


def _stranger(central: Airflow) -> httpx.Client:
    """Enrol a worker of our own and open its session."""
    token = central.enrolment_token(queues="nobody", name_pattern="stranger-*")
    client = httpx.Client(base_url=f"{central.url}/remote/v1/", headers={MARKER: "1.0", "authorization": f"Bearer {token}"})
    enrolled = client.post("enrol", json={"name": f"stranger-{uuid.uuid4().hex[:8]}"})
    assert enrolled.status_code == 201, enrolled.text
    client.headers["authorization"] = f"Bearer {enrolled.json()['credential']}"
    wish = {
        "instance_id": uuid.uuid4().hex,
        "boot_id": uuid.uuid4().hex,
        "protocol": "1.0",
        "capabilities": [],
        "slots": 1,
        "facts": {},
        "jobs": [],
    }
    session = client.post("session", json=wish)
    assert session.status_code == 200, session.text
    client.headers["airflow-remote-session"] = session.json()["session_id"]
    return client
