"""Every error is a problem with a code, and every response has the marker header."""

from __future__ import annotations

import asyncio

import httpx
import pytest
from airflow_remote_protocol.codec import Malformed, decode_problem
from airflow_remote_protocol.errors import STATUS, ProblemCode
from airflow_remote_protocol.version import MARKER_HEADER, PROBLEM_HEADER, PROTOCOL_VERSION
from airflow_remote_provider.api.problems import Marked, Refusal, as_response
from airflow_remote_provider.ledger import errors
from airflow_remote_provider.stores import Unstorable
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

TRANSLATED = [
    (Refusal(ProblemCode.TOO_LARGE, "over the limit"), ProblemCode.TOO_LARGE),
    (errors.NoSuchJob("job"), ProblemCode.NOT_FOUND),
    (errors.Superseded("over"), ProblemCode.SUPERSEDED),
    (errors.Impossible("no"), ProblemCode.INVALID),
    (errors.TokenRefused("no"), ProblemCode.TOKEN_REFUSED),
    (errors.NameTaken("no"), ProblemCode.NAME_TAKEN),
    (errors.Cloned("no"), ProblemCode.CLONED),
    (errors.Revoked("no"), ProblemCode.REVOKED),
    (errors.LedgerError("no"), ProblemCode.INVALID),
    (Unstorable("its name is too long"), ProblemCode.INVALID),
    (Malformed("not a valid Poll"), ProblemCode.INVALID),
    (OperationalError("SELECT secret", {}, Exception("gone")), ProblemCode.BUSY),
    (IntegrityError("INSERT", {}, Exception("twice")), ProblemCode.BUSY),
    (PoolTimeout("no connection"), ProblemCode.BUSY),
    (ZeroDivisionError("our own mistake"), ProblemCode.INTERNAL),
]


@pytest.mark.parametrize(
    ("error", "code"), TRANSLATED, ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None
)
def test_each_error_becomes_its_problem(error: Exception, code: ProblemCode) -> None:
    response = as_response(error)
    problem = decode_problem(bytes(response.body))
    assert problem is not None
    assert (response.status_code, problem.status, problem.code) == (STATUS[code], STATUS[code], code.value)
    assert response.headers[PROBLEM_HEADER] == code.value
    assert response.media_type == "application/problem+json"


@pytest.mark.parametrize("error", [error for error, code in TRANSLATED if STATUS[code] >= 500], ids=repr)
def test_a_temporary_error_has_a_time_to_retry_and_reveals_no_secrets(error: Exception) -> None:
    response = as_response(error)
    assert int(response.headers["retry-after"]) > 0
    assert b"SELECT" not in response.body and b"our own mistake" not in response.body


def test_a_final_error_has_no_time_to_retry() -> None:
    assert "retry-after" not in as_response(errors.Superseded("over")).headers


def test_the_problem_has_the_size() -> None:
    problem = decode_problem(bytes(as_response(Refusal(ProblemCode.LOG_OFFSET, "go on", size=7)).body))
    assert problem is not None and problem.size == 7


def test_every_response_has_the_marker_even_for_unknown_routes() -> None:
    async def fine(_request: object) -> Response:
        return PlainTextResponse("fine")

    app = Starlette(routes=[Route("/fine", fine)])
    app.add_middleware(Marked)

    async def ask() -> None:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://central") as client:
            for path in ("/fine", "/nowhere"):
                assert (await client.get(path)).headers.get_list(MARKER_HEADER) == [PROTOCOL_VERSION]

    asyncio.run(ask())


def test_the_middleware_ignores_other_scopes() -> None:
    seen: list[str] = []

    async def app(scope: dict[str, str], _receive: object, _send: object) -> None:
        seen.append(scope["type"])

    asyncio.run(Marked(app)({"type": "lifespan"}, None, None))  # type: ignore[arg-type]
    assert seen == ["lifespan"]


def test_the_time_to_retry_is_in_whole_seconds() -> None:
    for asked_s, sent in ((7.2, "8"), (0.01, "1")):
        refusal = Refusal(ProblemCode.BUSY, "a full queue", retry_after_s=asked_s)
        assert as_response(refusal).headers["retry-after"] == sent


def test_callers_that_failed_together_retry_at_different_times() -> None:
    sent = {as_response(OperationalError("SELECT 1", {}, Exception("gone"))).headers["retry-after"] for _ in range(200)}
    assert len(sent) > 1
