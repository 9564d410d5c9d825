"""Topic suite: `/remote/v1` answers only callers with the right credential."""

import json
import threading
import time
import uuid
from pathlib import Path

import httpx
import pytest
from airflow_remote_protocol.tokens import TokenKind, make_token

from e2e.conftest import NewWorker
from testkit.processes import wait_until
from testkit.servers.airflow import Airflow
from testkit.worker import Worker

MARKER, PROBLEM = "airflow-remote-protocol", "airflow-remote-problem"
JOB = "00000000-0000-0000-0000-000000000000"
ROUTES = [
    ("POST", "enrol"),
    ("POST", "credential"),
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
            if path == "enrol" and credential == "an Airflow admin's":
                continue  # this is one of the two ways to join
            answer = client.request(method, path, content=b"{}")
            assert answer.status_code in (401, 403), f"{method} {path}: {answer.status_code} {answer.text[:200]}"
            assert answer.headers.get(MARKER), f"{method} {path} has no marker of central"
            assert answer.headers.get(PROBLEM), f"{method} {path} names no problem"


def test_an_enrolment_token_enrols_one_worker(central: Airflow) -> None:
    token = central.enrolment_token(queues="nobody", name_pattern="once-*")
    headers = {MARKER: "1.0", "authorization": f"Bearer {token}"}
    url = f"{central.url}/remote/v1/enrol"
    assert httpx.post(url, json={"name": "other"}, headers=headers).status_code in (400, 403, 409, 422)
    assert httpx.post(url, json={"name": "once-1"}, headers=headers).status_code == 201
    assert httpx.post(url, json={"name": "once-2"}, headers=headers).status_code == 403


@pytest.mark.parametrize(("user", "status"), [("admin", 201), ("op", 201), ("viewer", 403)])
def test_a_user_with_the_right_can_let_a_worker_join(central: Airflow, user: str, status: int) -> None:
    login = {"username": user, "password": central.users[user].password}
    token = httpx.post(f"{central.url}/auth/token", json=login).json()["access_token"]
    headers = {MARKER: "1.0", "authorization": f"Bearer {token}"}
    body = {"name": f"by-{user}", "queues": ["nobody"]}
    answer = httpx.post(f"{central.url}/remote/v1/enrol", json=body, headers=headers)
    assert answer.status_code == status, answer.text
    forged = {**headers, "authorization": f"Bearer {token[:-4]}AAAA"}
    assert httpx.post(f"{central.url}/remote/v1/enrol", json={**body, "name": "forged"}, headers=forged).status_code == 401


def test_a_worker_joins_with_an_administrators_password(central: Airflow, tmp_path: Path) -> None:
    worker = Worker(tmp_path, name="by-password", central=central.url, token="none", bundles={})
    join = ("join", central.url, "--username", "op", "--name", worker.name, "--queues", "nobody")
    with pytest.raises(RuntimeError, match="does not accept the password of 'op'"):
        worker.run(*join, stdin="wrong\n")
    worker.run(*join, stdin=central.users["op"].password + "\n")
    worker.start()
    try:
        row = central.remote_api("workers", worker.name)
        assert (row["presence"], row["queues"]) == ("online", ["nobody"])
        [entry] = central.remote_api("audit", kind="enrolled", worker=worker.name)
        assert "the login of op" in entry["detail"]
        assert not any(central.users["op"].password in path.read_text(errors="replace") for path in _files(worker.state))
    finally:
        worker.stop()


def test_a_worker_can_not_access_another_workers_job(central: Airflow, worker: Worker, tmp_path: Path) -> None:
    run = central.trigger("lingering", {"directory": str(tmp_path)})
    wait_until((tmp_path / "pids").exists, timeout_s=60, what="the task runs")
    [job] = [job for job in central.remote_api("jobs") if job["run_id"] == run]
    task = central.task_instance("lingering", run, "linger")

    stranger = _other_worker(central)
    base = f"jobs/{job['id']}"
    for epoch in ("1", str(job.get("epoch", 1)), "999"):
        epoch_header = {"airflow-remote-epoch": epoch}
        for method, path, body in [
            ("POST", f"{base}/accept", b""),
            ("POST", f"{base}/report", b'{"outcome": "failed", "exit_code": 1, "log_size": 0}'),
            ("POST", f"{base}/log?offset=0", b"a forged line\n"),
            ("GET", f"{base}/execution/variables/anything", b""),
            ("GET", f"{base}/execution/connections/anything", b""),
            ("PUT", f"{base}/execution/task-instances/{task['id']}/heartbeat", b"{}"),
            ("PATCH", f"{base}/execution/task-instances/{task['id']}/state", b'{"state": "failed"}'),
        ]:
            answer = stranger.request(method, path, content=body, headers=epoch_header)
            assert answer.status_code in (400, 403, 404, 409), f"{method} {path}: {answer.status_code} {answer.text[:200]}"
            assert answer.headers.get(PROBLEM), f"{method} {path} was not refused by our own API: {answer.text[:200]}"

    assert central.task_instance("lingering", run, "linger")["state"] == "running"
    assert "a forged line" not in central.task_log("lingering", run, "linger")
    central.set_task_state("lingering", run, "linger", "success")
    assert central.wait_for_run("lingering", run) == "success"


def test_a_worker_replaces_its_credential_while_it_works(central: Airflow, new_worker: NewWorker) -> None:
    """On an API server with credentials that expire after seconds, the worker rotates repeatedly and is not flagged as a copy."""
    short = {"AIRFLOW__REMOTE__CREDENTIAL_DAYS": "0.0002"}  # 17 s
    url = central.start_another_api_server(called="short-lived", settings=short)
    try:
        worker = new_worker(central, "renewing", queues="renewing", url=url)
        seen = {_credential(worker)}
        while len(seen) < 3:
            wait_until(lambda: _credential(worker) not in seen, timeout_s=30, what="the credential is replaced")
            seen.add(_credential(worker))
        assert worker.is_serving()
        row = central.remote_api("workers", "renewing")
        assert row["alarm"] == "" and row["presence"] == "online"
        [entry] = central.remote_api("audit", kind="rotated", worker="renewing")
        assert entry["times"] >= 2
        worker.stop()
    finally:
        central.stop_process("short-lived")


def test_a_suspension_ends_an_open_poll_at_once_and_can_be_lifted(central: Airflow) -> None:
    stranger = _other_worker(central)
    name = stranger.get("ping").json()["name"]
    answers: list[httpx.Response] = []

    def park() -> None:
        poll = {"free_slots": 0, "intent_revision": 99, "wait_s": 50.0, "jobs": []}
        answers.append(stranger.post("poll", json=poll, timeout=60))

    parked = threading.Thread(target=park, daemon=True)
    parked.start()
    time.sleep(2)  # it is parked then, and not over when the command of another process would have been started
    central.client().post(f"/remote/ui/v1/workers/{name}/suspend", json={"reason": "a test"}).raise_for_status()
    parked.join(30)
    assert answers, "the open poll continued; by itself it would end after 50 s"
    [answer] = answers
    assert (answer.status_code, answer.headers[PROBLEM]) == (403, "suspended")
    assert stranger.get("ping").headers[PROBLEM] == "suspended"
    central.remote_change("POST", "workers", name, "unsuspend")
    wait_until(lambda: stranger.get("ping").status_code == 200, timeout_s=60, what="the worker is accepted again")


def _files(root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if path.is_file()]


def _credential(worker: Worker) -> str:
    return str(json.loads((worker.state / "credential.json").read_text())["credential"])


def _other_worker(central: Airflow) -> httpx.Client:
    """Enrol another worker and open its session; return its client."""
    token = central.enrolment_token(queues="nobody", name_pattern="stranger-*")
    client = httpx.Client(base_url=f"{central.url}/remote/v1/", headers={MARKER: "1.0", "authorization": f"Bearer {token}"})
    enrolled = client.post("enrol", json={"name": f"stranger-{uuid.uuid4().hex[:8]}"})
    assert enrolled.status_code == 201, enrolled.text
    client.headers["authorization"] = f"Bearer {enrolled.json()['credential']}"
    body = {
        "instance_id": uuid.uuid4().hex,
        "boot_id": uuid.uuid4().hex,
        "protocol": "1.0",
        "capabilities": [],
        "slots": 1,
        "facts": {},
        "jobs": [],
    }
    session = client.post("session", json=body)
    assert session.status_code == 200, session.text
    client.headers["airflow-remote-session"] = session.json()["session_id"]
    return client
