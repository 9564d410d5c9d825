"""A login exchanges a user's password for Airflow's token, or explains the refusal; other answers are not trusted."""

from __future__ import annotations

import json

import anyio
import httpx
import pytest
from airflow_remote_worker.cli import main
from airflow_remote_worker.errors import Refused, Unreachable
from airflow_remote_worker.link.client import Link
from airflow_remote_worker.link.network import Network

from .conftest import HandClock


def _log_in(status: int, body: bytes, asked: list[httpx.Request] | None = None) -> str:
    def answer(request: httpx.Request) -> httpx.Response:
        (asked if asked is not None else []).append(request)
        return httpx.Response(status, content=body)

    async def run() -> str:
        network = Network(central="https://airflow.example.com/sub")
        link = Link(network, credential="", clock=HandClock(), transport=httpx.MockTransport(answer))
        try:
            return await link.log_in("ann", "s3cret")
        finally:
            await link.close()

    return anyio.run(run)


def test_the_login_uses_airflows_endpoint() -> None:
    asked: list[httpx.Request] = []
    assert _log_in(201, b'{"access_token": "a.b.c", "more": 1}', asked) == "a.b.c"
    [request] = asked
    assert str(request.url) == "https://airflow.example.com/sub/auth/token"
    assert json.loads(request.content) == {"username": "ann", "password": "s3cret"}
    assert "authorization" not in request.headers


@pytest.mark.parametrize(
    ("status", "said"),
    [(401, "password of 'ann'"), (403, "password of 'ann'"), (404, "enrolment token"), (405, "enrolment token")],
)
def test_a_refusal_is_explained(status: int, said: str) -> None:
    with pytest.raises(Refused, match=said) as refused:
        _log_in(status, b'{"detail": "s3cret"}')
    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize(("status", "body"), [(200, b"<html>"), (302, b""), (500, b"oops"), (200, b'{"token": "x"}')])
def test_an_answer_without_a_token_is_not_trusted(status: int, body: bytes) -> None:
    with pytest.raises(Unreachable):
        _log_in(status, body)


def test_a_user_must_name_queues(capsys: pytest.CaptureFixture[str], tmp_path) -> None:
    assert main(["join", "http://127.0.0.1:1", "--username", "ann", "--state", str(tmp_path)]) == 2
    assert "--queues" in capsys.readouterr().err
