"""Answers to the Task SDK's client."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import httpx
import pytest
from airflow_remote_protocol.execution import ANSWER_HEADERS
from airflow_remote_worker.jobs.outbox_reader import OutboxReader
from airflow_remote_worker.local import frames
from airflow_remote_worker.shim.outbox_writer import OutboxWriter
from airflow_remote_worker.shim.transport import BASE_URL, GatewayTransport

from testkit.sdk_client import headers_read


class FakeGateway:
    """Answers from a list; keeps the calls."""

    def __init__(self, *answers: frames.Answer | frames.Spool | None) -> None:
        self.answers = list(answers)
        self.could_spool: list[bool] = []
        self.notified = 0
        self.calls: list[tuple[str, str, dict[str, str], bytes]] = []
        self.stop: frames.Stop | None = None
        self.drained = 0
        self.waited: list[float] = []

    def call(
        self, method: str, path: str, *, headers: dict[str, str], body: bytes, may_spool: bool = False
    ) -> frames.Answer | frames.Spool | None:
        self.calls.append((method, path, headers, body))
        self.could_spool.append(may_spool)
        return self.answers.pop(0)

    def notify_spooled(self) -> None:
        self.notified += 1

    def drain(self) -> None:
        self.drained += 1

    def wait(self, seconds: float) -> None:
        self.waited.append(seconds)


def client_of(gateway: FakeGateway, outbox: OutboxWriter | None = None) -> httpx.Client:
    return httpx.Client(base_url=BASE_URL, transport=GatewayTransport(gateway, outbox))  # type: ignore[arg-type]


def answer(status: int, body: object = None, content_type: str = "application/json") -> frames.Answer:
    return frames.Answer(id=1, status=status, headers={"Content-Type": content_type}, body=json.dumps(body).encode())


def test_a_heartbeat_never_leaves_the_machine() -> None:
    gateway = FakeGateway()
    assert client_of(gateway).put("task-instances/x/heartbeat", content="{}").status_code == 204
    assert gateway.calls == []
    assert gateway.drained == 1


def test_after_a_stop_a_heartbeat_is_answered_as_airflow_would() -> None:
    gateway = FakeGateway()
    gateway.stop = frames.Stop(reason="ended", detail="ada marked it failed")
    response = client_of(gateway).put("task-instances/x/heartbeat", content="{}")
    assert response.status_code == 409
    assert response.headers["content-type"] == "application/json"
    assert response.json() == {"detail": {"reason": "ended", "message": "ada marked it failed"}}


def test_after_a_stop_nothing_starts() -> None:
    gateway = FakeGateway()
    gateway.stop = frames.Stop(reason="revoked")
    assert client_of(gateway).patch("task-instances/x/run", content="{}").status_code == 409
    assert gateway.calls == []


def test_other_calls_are_forwarded_with_the_relevant_headers() -> None:
    gateway = FakeGateway(answer(200, {"a": 1}))
    headers = {"airflow-api-version": "2026-01-01", "authorization": "Bearer x", "content-type": "application/json"}
    response = client_of(gateway).post("/xcoms/d/r/t/k%2Fk", params={"map_index": -1}, content=b"{}", headers=headers)
    assert response.json() == {"a": 1}
    forwarded = {"airflow-api-version": "2026-01-01", "content-type": "application/json"}
    assert gateway.calls == [("POST", "xcoms/d/r/t/k%2Fk?map_index=-1", forwarded, b"{}")]


def test_a_server_error_is_retried_with_pauses_that_a_stop_can_end() -> None:
    gateway = FakeGateway(answer(500), answer(502), answer(200, "ok"))
    assert client_of(gateway).get("variables/x").json() == "ok"
    assert gateway.waited == [1.0, 2.0]


def test_a_lasting_server_error_is_passed_on() -> None:
    gateway = FakeGateway(*[answer(500)] * 5)
    assert client_of(gateway).get("variables/x").status_code == 500
    assert gateway.answers == []


def test_a_problem_of_central_reaches_the_task_in_a_form_that_airflow_reads() -> None:
    problem = {"code": "not-granted", "detail": "connection 'vault' is not granted to queue 'factory'"}
    gateway = FakeGateway(answer(403, problem, "application/problem+json"))
    response = client_of(gateway).get("connections/vault")
    assert response.headers["content-type"] == "application/json"
    assert response.json() == {"detail": problem}


def test_a_call_ended_by_a_stop_is_answered_with_the_stop() -> None:
    gateway = FakeGateway(None)
    client = client_of(gateway)

    def stopping(*call: object, **options: object) -> None:
        gateway.stop = frames.Stop(reason="gone")

    gateway.call = stopping  # type: ignore[method-assign]
    assert client.get("variables/x").json()["detail"]["reason"] == "gone"


# Writes, and the outbox

SPOOL = frames.Spool(id=1)
JSON = {"content-type": "application/json"}


def test_a_write_while_central_is_unreachable_is_kept_and_answered_with_success(tmp_path: Path) -> None:
    gateway = FakeGateway(SPOOL)
    response = client_of(gateway, OutboxWriter(tmp_path)).post(
        "xcoms/d/r/t/k", params={"map_index": 2}, content=b"1", headers=JSON
    )
    assert response.status_code == 201
    assert gateway.could_spool == [True]
    assert gateway.notified == 1
    kept = OutboxReader(tmp_path).next()
    assert kept == frames.Call(id=0, method="POST", path="xcoms/d/r/t/k?map_index=2", headers=JSON, body=b"1")


def test_a_write_goes_to_central_while_it_can_be_reached(tmp_path: Path) -> None:
    gateway = FakeGateway(answer(201, {"message": "set"}))
    assert client_of(gateway, OutboxWriter(tmp_path)).post("xcoms/d/r/t/k", content=b"1").json() == {"message": "set"}
    assert not OutboxWriter(tmp_path).waits


def test_writes_after_a_spooled_write_are_spooled_too(tmp_path: Path) -> None:
    gateway = FakeGateway(SPOOL)
    client = client_of(gateway, OutboxWriter(tmp_path))
    client.post("xcoms/d/r/t/k", content=b"1")
    assert client.patch("task-instances/x/state", content=b"{}").status_code == 204
    assert len(gateway.calls) == 1, "the second was not sent: central must not receive it before the first"
    size = (tmp_path / "outbox").stat().st_size
    (tmp_path / "outbox.done").write_text(str(size))
    gateway.answers.append(answer(201))
    client.post("xcoms/d/r/t/k", content=b"2")
    assert (tmp_path / "outbox").stat().st_size == size, "everything is delivered: the next write goes to central again"


def test_a_read_is_never_spooled(tmp_path: Path) -> None:
    gateway = FakeGateway(answer(200, 1))
    client_of(gateway, OutboxWriter(tmp_path)).get("xcoms/d/r/t/k")
    assert gateway.could_spool == [False]


@pytest.mark.parametrize(
    ("path", "body", "why"),
    [
        ("xcoms/d/r/t/k", b'"a\\u0000b"', "NUL"),
        ("xcoms/d/r/t/k", b'"a\\ud800b"', "not JSON"),
        ("xcoms/d/r/t/k", b"[" * 200 + b"]" * 200, "levels"),
        ("xcoms/d/r/t/k", json.dumps('{"__classname__": "a.B"}').encode(), "encoded object"),
        ("xcoms/d/r/t/k?map_index=x", b"1", "map_index"),
        ("xcoms/d/r/t/" + "k" * 513, b"1", "513 characters"),
        ("xcoms/d/r/t/%2e%2e", b"1", "only dots"),
        ("xcoms/d/r/t/a%00b", b"1", "control characters"),
    ],
)
@pytest.mark.parametrize("waits", [False, True])
def test_writes_that_central_would_refuse_are_refused_before_they_are_kept(
    tmp_path: Path, path: str, body: bytes, why: str, waits: bool
) -> None:
    gateway = FakeGateway(SPOOL)
    if waits:
        OutboxWriter(tmp_path).append(frames.Call(id=0, method="POST", path="xcoms/d/r/t/earlier", headers={}, body=b"1"))
    size = (tmp_path / "outbox").stat().st_size if waits else 0
    response = client_of(gateway, OutboxWriter(tmp_path)).post(path, content=body, headers=JSON)
    assert response.status_code == 422
    assert why in response.json()["detail"]["message"]
    assert ((tmp_path / "outbox").stat().st_size if waits else size) == size


@pytest.mark.parametrize("waits", [False, True])
def test_writes_that_are_too_large_are_refused_before_they_are_kept(tmp_path: Path, waits: bool) -> None:
    gateway = FakeGateway(SPOOL)
    outbox = OutboxWriter(tmp_path)
    if waits:
        outbox.append(frames.Call(id=0, method="POST", path="xcoms/d/r/t/earlier", headers={}, body=b"1"))
    client = httpx.Client(base_url=BASE_URL, transport=GatewayTransport(gateway, outbox, body_bytes=10))  # type: ignore[arg-type]
    response = client.post("xcoms/d/r/t/k", content=json.dumps("x" * 10))
    assert response.status_code == 413
    assert "has 12 bytes; the limit is 10 bytes ([remote] gateway_body_bytes)" in response.json()["detail"]["message"]
    assert outbox.waits is waits


def test_bodies_that_are_too_long_never_reach_the_daemon() -> None:
    gateway = FakeGateway()
    client = httpx.Client(base_url=BASE_URL, transport=GatewayTransport(gateway, body_bytes=10))  # type: ignore[arg-type]
    assert client.put("variables/x", content=b"x" * 11).status_code == 413
    assert gateway.calls == []


@pytest.mark.parametrize("path", ["variables/heartbeat", "variables/etl/heartbeat", "store/ti/1/heartbeat"])
def test_only_a_task_s_own_heartbeat_is_answered_here(path: str) -> None:
    gateway = FakeGateway(answer(201))
    client_of(gateway).put(path, content=b"1")
    assert [call[1] for call in gateway.calls] == [path]


def test_the_answers_headers_reach_the_client() -> None:
    found = frames.Answer(id=1, status=200, headers={"Content-Range": "map_indexes 3", "correlation-id": "c"})
    response = client_of(FakeGateway(found)).head("xcoms/d/r/t/k")
    assert (response.headers["Content-Range"], response.headers["correlation-id"]) == ("map_indexes 3", "c")


def test_all_headers_that_the_runtimes_client_reads_are_passed_on_but_the_token(runtime: str) -> None:
    sdk = subprocess.run(
        [runtime, "-c", "import importlib.util; print(importlib.util.find_spec('airflow.sdk').submodule_search_locations[0])"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    read = headers_read(Path(sdk))
    assert {"content-type", "content-range", "refreshed-api-token"} <= read, "the test finds what the client reads"
    assert read - {"refreshed-api-token"} <= set(ANSWER_HEADERS)


def test_a_write_beyond_the_limit_waits_for_central(tmp_path: Path) -> None:
    gateway = FakeGateway(SPOOL, answer(201))
    assert (
        client_of(gateway, OutboxWriter(tmp_path, most=100)).post("xcoms/d/r/t/k", content=json.dumps("x" * 200)).status_code
        == 201
    )
    assert gateway.could_spool == [True, False]
    assert not OutboxWriter(tmp_path).waits


def test_a_write_that_can_t_be_stored_waits_for_central(tmp_path: Path) -> None:
    gateway = FakeGateway(SPOOL, answer(204))
    gone = OutboxWriter(tmp_path / "no such directory")
    assert client_of(gateway, gone).patch("task-instances/x/state", content=b"{}").status_code == 204
    assert gateway.could_spool == [True, False]


def test_after_a_stop_nothing_is_spooled(tmp_path: Path) -> None:
    gateway = FakeGateway(None)
    gateway.stop = frames.Stop(reason="superseded")
    assert client_of(gateway, OutboxWriter(tmp_path)).post("xcoms/d/r/t/k", content=b"1").status_code == 409
    assert gateway.could_spool == [False]
