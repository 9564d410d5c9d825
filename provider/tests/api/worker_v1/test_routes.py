"""The route table: credentials, unknown paths, wrong methods, the checks before a job's routes, and errors as responses."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from testkit.central import PREFIX, ServedCentral  # isort: skip

from airflow_remote_protocol.codec import decode_problem
from airflow_remote_protocol.conformance.caller import Caller
from airflow_remote_protocol.conformance.central import Response as Answer
from airflow_remote_protocol.conformance.expect import expect_refusal
from airflow_remote_protocol.errors import STATUS, ProblemCode
from airflow_remote_protocol.version import EPOCH_HEADER, MARKER_HEADER, PROBLEM_HEADER, PROTOCOL_VERSION
from airflow_remote_provider.api.problems import Refusal
from airflow_remote_provider.api.worker_v1.context import ApiContext
from airflow_remote_provider.api.worker_v1.routes import _route, routes
from airflow_remote_provider.ledger.errors import Superseded
from sqlalchemy import Engine
from starlette.requests import Request
from starlette.responses import Response

CENTRAL: ApiContext = object()  # type: ignore[assignment]
"""Routes only pass it on."""
TABLE = sorted((method, route.path) for route in routes(CENTRAL) for method in route.methods or ())
OF_JOBS = [(method, path) for method, path in TABLE if "{job_id}" in path]
FIXED = sorted({path for _, path in TABLE if "{path" not in path})
"""Paths with few methods; the others accept every usual method."""
JOB_ID = "f0f0f0f0-0000-4000-8000-000000000000"


@pytest.fixture
def central(database: Engine) -> Iterator[ServedCentral]:
    with ServedCentral() as served:
        yield served


@pytest.fixture
def caller(central: ServedCentral) -> Caller:
    return Caller.connect(central)


def _path(pattern: str, job_id: str = JOB_ID) -> str:
    return pattern.lstrip("/").replace("{job_id}", job_id).replace("{path:path}", "no/such/route")


def _check_refusal(method: str, answer: Answer, code: ProblemCode) -> None:
    """Check that the answer is a problem; an answer to HEAD has no body."""
    if method == "HEAD":
        assert (answer.status, answer.headers[PROBLEM_HEADER]) == (STATUS[code], code.value)
    else:
        expect_refusal(answer, code)


def test_the_table_has_all_kinds_of_routes() -> None:
    assert {("POST", "/enrol"), ("POST", "/poll"), ("GET", "/ping"), ("DELETE", "/{path:path}")} <= set(TABLE)
    assert {"/jobs/{job_id}/accept", "/jobs/{job_id}/execution/{path:path}"} <= {path for _, path in OF_JOBS}


def test_every_route_refuses_a_call_without_a_credential(central: ServedCentral) -> None:
    for method, path in TABLE:
        answer = central.request(method, _path(path), headers={MARKER_HEADER: PROTOCOL_VERSION})
        _check_refusal(method, answer, ProblemCode.UNAUTHORIZED)


@pytest.mark.parametrize("method", [method for method, path in TABLE if path == "/{path:path}"])
def test_an_unknown_path_is_not_found_with_a_credential(caller: Caller, method: str) -> None:
    answer = caller.call(method, "no/such/route")
    _check_refusal(method, answer, ProblemCode.NOT_FOUND)
    if method != "HEAD":
        assert f"there is no {method} {PREFIX}/no/such/route" in answer.body.decode()


def test_a_wrong_method_is_not_found_and_needs_a_credential(central: ServedCentral, caller: Caller) -> None:
    for path in FIXED:
        assert ("DELETE", path) not in TABLE
        _check_refusal("DELETE", caller.call("DELETE", _path(path)), ProblemCode.NOT_FOUND)
        answer = central.request("DELETE", _path(path), headers={MARKER_HEADER: PROTOCOL_VERSION})
        _check_refusal("DELETE", answer, ProblemCode.UNAUTHORIZED)


@pytest.mark.parametrize("path", ["poll", "no/such/route", f"jobs/{JOB_ID}/execution/health"])
def test_an_unusual_method_is_not_allowed(caller: Caller, path: str) -> None:
    answer = caller.call("TRACE", path)
    assert (answer.status, answer.headers[MARKER_HEADER]) == (405, PROTOCOL_VERSION)


@pytest.mark.parametrize("epoch", [None, "", "x", "1.5", "0x1", "1 2"])
def test_a_job_s_routes_refuse_a_bad_epoch(caller: Caller, epoch: str | None) -> None:
    headers = {} if epoch is None else {EPOCH_HEADER: epoch}
    for method, path in OF_JOBS:
        answer = caller.call(method, _path(path), headers=headers)
        _check_refusal(method, answer, ProblemCode.INVALID)
        assert method == "HEAD" or EPOCH_HEADER.encode() in answer.body, (method, path)


@pytest.mark.parametrize("job_id", ["a_b", "a" * 37, "%C3%A4", "a%00b", "a%20b", "'--"])
def test_a_job_s_routes_answer_a_bad_id_like_an_unknown_job(caller: Caller, job_id: str) -> None:
    for method, path in OF_JOBS:
        answer = caller.call(method, _path(path, job_id), headers={EPOCH_HEADER: "1"})
        _check_refusal(method, answer, ProblemCode.NOT_FOUND)


# One route, called over ASGI


def _call(handle: Callable[[ApiContext, Request], Awaitable[Response]], *messages: dict[str, Any]) -> tuple[int, bytes]:
    """Send *messages* to a route of *handle*; return the status and the body of its answer."""
    received = list(messages)
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return received.pop(0) if received else {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/x", "raw_path": b"/x", "query_string": b"", "headers": []}
    asyncio.run(_route(CENTRAL, "/x", handle, methods=["POST"]).app(scope, receive, send))
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:])


async def _echo(central: ApiContext, request: Request) -> Response:
    assert central is CENTRAL
    return Response(await request.body())


def test_a_route_calls_its_function_with_the_context_and_the_request() -> None:
    assert _call(_echo, {"type": "http.request", "body": b"said"}) == (200, b"said")


def test_a_client_that_disconnects_during_its_body_gets_499() -> None:
    assert _call(_echo, {"type": "http.request", "body": b"sa", "more_body": True}) == (499, b"")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Refusal(ProblemCode.BUSY, "try again later", retry_after_s=3), ProblemCode.BUSY),
        (Superseded("the lease is over"), ProblemCode.SUPERSEDED),
        (ZeroDivisionError("a secret"), ProblemCode.INTERNAL),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_an_exception_becomes_a_problem(error: Exception, code: ProblemCode) -> None:
    async def fail(_central: ApiContext, _request: Request) -> Response:
        raise error

    status, body = _call(fail, {"type": "http.request", "body": b""})
    problem = decode_problem(body)
    assert problem is not None
    assert (status, problem.status, problem.code) == (STATUS[code], STATUS[code], code.value)
    assert "secret" not in problem.detail
