"""What the Task SDK's client gets to see."""

from __future__ import annotations

import json

import httpx
from airflow_remote_worker.shim import wire
from airflow_remote_worker.shim.transport import BASE_URL, GatewayTransport


class FakeGateway:
    """Answers from a list; keeps the calls."""

    def __init__(self, *answers: wire.Answer | None) -> None:
        self.answers = list(answers)
        self.calls: list[tuple[str, str, dict[str, str], bytes]] = []
        self.stop: wire.Stop | None = None
        self.drained = 0
        self.waited: list[float] = []

    def call(self, *call: object) -> wire.Answer | None:
        self.calls.append(call)  # type: ignore[arg-type]
        return self.answers.pop(0)

    def drain(self) -> None:
        self.drained += 1

    def wait(self, seconds: float) -> None:
        self.waited.append(seconds)


def client_of(gateway: FakeGateway) -> httpx.Client:
    return httpx.Client(base_url=BASE_URL, transport=GatewayTransport(gateway))  # type: ignore[arg-type]


def answer(status: int, body: object = None, content_type: str = "application/json") -> wire.Answer:
    return wire.Answer(id=1, status=status, headers={"Content-Type": content_type}, body=json.dumps(body).encode())


def test_a_heartbeat_never_leaves_the_machine() -> None:
    gateway = FakeGateway()
    assert client_of(gateway).put("task-instances/x/heartbeat", content="{}").status_code == 204
    assert gateway.calls == []
    assert gateway.drained == 1


def test_after_a_stop_a_heartbeat_is_told_so_in_airflows_words() -> None:
    gateway = FakeGateway()
    gateway.stop = wire.Stop(reason="ended", detail="ada marked it failed")
    response = client_of(gateway).put("task-instances/x/heartbeat", content="{}")
    assert response.status_code == 409
    assert response.headers["content-type"] == "application/json"
    assert response.json() == {"detail": {"reason": "ended", "message": "ada marked it failed"}}


def test_after_a_stop_nothing_starts() -> None:
    gateway = FakeGateway()
    gateway.stop = wire.Stop(reason="revoked")
    assert client_of(gateway).patch("task-instances/x/run", content="{}").status_code == 409
    assert gateway.calls == []


def test_other_calls_go_through_with_the_headers_that_matter() -> None:
    gateway = FakeGateway(answer(200, {"a": 1}))
    headers = {"airflow-api-version": "2026-01-01", "authorization": "Bearer x", "content-type": "application/json"}
    response = client_of(gateway).post("/xcoms/d/r/t/k%2Fk", params={"map_index": -1}, content=b"{}", headers=headers)
    assert response.json() == {"a": 1}
    forwarded = {"airflow-api-version": "2026-01-01", "content-type": "application/json"}
    assert gateway.calls == [("POST", "xcoms/d/r/t/k%2Fk?map_index=-1", forwarded, b"{}")]


def test_a_server_error_is_tried_again_with_pauses_that_a_stop_can_end() -> None:
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


def test_a_call_cut_short_by_a_stop_is_answered_with_the_stop() -> None:
    gateway = FakeGateway(None)
    client = client_of(gateway)

    def stopping(*call: object) -> None:
        gateway.stop = wire.Stop(reason="gone")

    gateway.call = stopping  # type: ignore[method-assign]
    assert client.get("variables/x").json()["detail"]["reason"] == "gone"
