"""The headers, paths and bodies that the gateway passes on in each direction, the token, and the limit of concurrent calls."""

from __future__ import annotations

import asyncio
import gc
import os
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import airflow.sdk
import httpx
import jwt
import pytest

import testkit.ledger  # noqa: F401  isort: skip  (first: it points Airflow elsewhere)

from airflow_remote_protocol.errors import ProblemCode
from airflow_remote_protocol.execution import ANSWER_HEADERS
from airflow_remote_protocol.messages import JobKind
from airflow_remote_provider import compat
from airflow_remote_provider.api.gateway.failures import ServerFailed
from airflow_remote_provider.api.gateway.gateway import Gateway, Passed
from airflow_remote_provider.api.gateway.rules import NOTHING, Match
from airflow_remote_provider.api.problems import Refusal
from airflow_remote_provider.ledger.fence import Subject
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from testkit.sdk_client import headers_read

TI = uuid.uuid4()


class Stub:
    """An Execution API that records its requests."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.at_once = self.most_at_once = 0
        self.running = False
        self.refusals = 0
        """How many of the next calls are refused for their token."""
        self.gate = asyncio.Event()
        self.gate.set()

    def app(self) -> Starlette:
        @asynccontextmanager
        async def lifespan(_app: Starlette) -> AsyncIterator[None]:
            self.running = True
            yield
            self.running = False

        async def anything(request: Request) -> Response:
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
            await self.gate.wait()
            self.requests.append({**request.scope, "body": await request.body(), "headers": list(request.scope["headers"])})
            self.at_once -= 1
            if self.refusals > 0:
                self.refusals -= 1
                return JSONResponse({"detail": "Invalid auth token"}, 403)
            if request.url.path == "/broken":
                raise ZeroDivisionError
            answer = {
                "content-type": "application/json",
                "correlation-id": "c-1",
                "set-cookie": "a=b",
                "Content-Range": "map_indexes 3",
            }
            answer |= {"refreshed-api-token": "eyJhbGciOi", "server": "airflow", "x-internal": "10.0.0.1"}
            return JSONResponse({"fine": True}, 418, answer)

        methods = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD"]
        return Starlette(routes=[Route("/{path:path}", anything, methods=methods)], lifespan=lifespan)


def _with(check: Callable[[Gateway, Stub], Awaitable[None]], *, concurrency: int = 4) -> None:
    async def run() -> None:
        stub = Stub()
        gateway = Gateway(concurrency, stub.app)
        async with gateway.serving():
            stub.requests.clear()  # the warming call
            await check(gateway, stub)

    asyncio.run(run())


async def _pass(gateway: Gateway, path: str = "variables/x", *, headers: dict[str, str] | None = None, **how: Any) -> Passed:
    raw = [(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()]
    subject = Subject(JobKind.TASK, TI)
    return await gateway.pass_on(
        _match(path, how.get("method", "GET")),
        query=how.get("query", b""),
        headers=raw,
        body=how.get("body", b""),
        subject=subject,
    )


def _match(path: str, method: str = "GET") -> Match:
    return Match(method, NOTHING, {}, unquote(path), path)


def test_only_listed_request_headers_are_passed_on() -> None:
    async def check(gateway: Gateway, stub: Stub) -> None:
        listed = {"Airflow-API-Version": "2025-01-01", "Content-Type": "application/json", "Correlation-Id": "c"}
        listed |= {"traceparent": "00-a-b-01", "tracestate": "x=y"}
        others = {"Authorization": "Bearer arwkr_secret", "Cookie": "session=1", "X-Forwarded-For": "1.2.3.4", "Host": "evil"}
        others |= {"Content-Length": "999", "Transfer-Encoding": "chunked", "airflow-remote-epoch": "3", "Accept": "*/*"}
        await _pass(gateway, headers={**listed, **others}, body=b"{}")
        (seen,) = stub.requests
        headers = {name.decode(): value.decode() for name, value in seen["headers"]}
        token = headers.pop("authorization")
        assert headers == {**{name.lower(): value for name, value in listed.items()}, "host": "central", "content-length": "2"}
        assert "arwkr" not in token
        assert len(seen["headers"]) == len(headers) + 1, "no header twice"

    _with(check)


def test_headers_that_are_not_ascii_are_not_passed_on() -> None:
    async def check(gateway: Gateway, stub: Stub) -> None:
        await gateway.pass_on(
            _match("variables/x"),
            query=b"",
            headers=[(b"correlation-id", b"\x80\xff")],
            body=b"",
            subject=Subject(JobKind.TASK, TI),
        )
        assert b"correlation-id" not in dict(stub.requests[0]["headers"])

    _with(check)


def test_only_listed_response_headers_are_passed_on() -> None:
    async def check(gateway: Gateway, _stub: Stub) -> None:
        passed = await _pass(gateway)
        assert passed.headers == {"content-type": "application/json", "correlation-id": "c-1", "content-range": "map_indexes 3"}
        assert (passed.status, passed.body) == (418, b'{"fine":true}')

    _with(check)


def test_all_headers_that_the_task_client_reads_are_passed_on_except_the_token() -> None:
    read = headers_read(Path(airflow.sdk.__file__).parent)
    assert {"content-type", "content-range", "refreshed-api-token"} <= read, "the test finds the headers that the client reads"
    assert read - {"refreshed-api-token"} <= set(ANSWER_HEADERS)


def test_the_token_is_short_lived_and_for_this_task_instance_only() -> None:
    async def check(gateway: Gateway, stub: Stub) -> None:
        await _pass(gateway)
        headers = dict(stub.requests[0]["headers"])
        token = headers[b"authorization"].decode().removeprefix("Bearer ")
        secret = os.environ["AIRFLOW__API_AUTH__JWT_SECRET"]
        claims = jwt.decode(token, secret, algorithms=["HS512"], audience="urn:airflow.apache.org:task")
        assert (claims["sub"], claims["scope"]) == (str(TI), "execution")
        assert claims["exp"] - claims["iat"] <= 60

    _with(check)


@pytest.mark.parametrize(("refusals", "status"), [(1, 418), (2, 403)])
def test_a_token_that_a_clock_jump_invalidated_is_replaced_once(refusals: int, status: int) -> None:
    async def check(gateway: Gateway, stub: Stub) -> None:
        stub.refusals = refusals
        assert (await _pass(gateway, body=b"b")).status == status
        first, second = (dict(request["headers"])[b"authorization"] for request in stub.requests)
        assert first != second
        assert [request["body"] for request in stub.requests] == [b"b", b"b"]

    _with(check)


def test_airflows_own_refusal_of_a_token_is_recognized() -> None:
    async def check() -> None:
        app = compat.execution_api_app()
        transport = httpx.ASGITransport(app)
        async with app.router.lifespan_context(app), httpx.AsyncClient(transport=transport, base_url="http://central") as client:
            answer = await client.get("/variables/x", headers={"authorization": "Bearer e.e.e"})
        assert compat.refuses_token(answer.status_code, answer.content)
        assert not compat.refuses_token(403, b'{"detail":{"reason":"access_denied"}}')

    asyncio.run(check())


def test_method_query_and_body_are_passed_on_unchanged() -> None:
    async def check(gateway: Gateway, stub: Stub) -> None:
        body = bytes(range(256)) * 400
        await _pass(gateway, "xcoms/d/r/t/k", method="POST", query=b"map_index=3&x=%2F", body=body)
        (seen,) = stub.requests
        assert (seen["method"], seen["query_string"], seen["body"]) == ("POST", b"map_index=3&x=%2F", body)
        assert (seen["path"], seen["raw_path"]) == ("/xcoms/d/r/t/k", b"/xcoms/d/r/t/k")

    _with(check)


@pytest.mark.parametrize("key", ["a%2Fb", "a%20b", "%C3%A4", "a%252Fb", "100%25", "a;b=c", "a+b"])
def test_an_encoded_key_is_passed_on_unchanged(key: str) -> None:
    async def check(gateway: Gateway, stub: Stub) -> None:
        await _pass(gateway, f"xcoms/d/r/t/{key}")
        (seen,) = stub.requests
        assert seen["raw_path"] == f"/xcoms/d/r/t/{key}".encode()
        assert seen["path"] == f"/xcoms/d/r/t/{unquote(key)}"

    _with(check)


def test_concurrent_calls_are_limited() -> None:
    async def check(gateway: Gateway, stub: Stub) -> None:
        stub.gate.clear()
        calls = [asyncio.ensure_future(_pass(gateway)) for _ in range(12)]
        for _ in range(50):
            await asyncio.sleep(0)
        assert stub.at_once == 3
        stub.gate.set()
        await asyncio.gather(*calls)
        assert (stub.most_at_once, len(stub.requests)) == (3, 12)

    _with(check, concurrency=3)


def test_a_failing_call_gives_its_place_back() -> None:
    async def check(gateway: Gateway, stub: Stub) -> None:
        for _ in range(5):
            with pytest.raises(ServerFailed):
                await _pass(gateway, "broken")
        assert (await _pass(gateway)).status == 418

    _with(check, concurrency=1)


def test_an_abandoned_call_gives_its_place_back() -> None:
    async def check(gateway: Gateway, stub: Stub) -> None:
        stub.gate.clear()
        call = asyncio.ensure_future(_pass(gateway))
        await asyncio.sleep(0.01)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        stub.gate.set()
        assert (await asyncio.wait_for(_pass(gateway), 5)).status == 418

    _with(check, concurrency=1)


def test_the_garbage_collector_is_enabled_while_the_gateway_serves() -> None:
    async def check(gateway: Gateway, stub: Stub) -> None:
        assert gc.isenabled()

    _with(check)


def test_the_gateway_is_busy_before_and_after_it_serves() -> None:
    async def run() -> None:
        stub = Stub()
        gateway = Gateway(1, stub.app)
        for _ in range(2):
            with pytest.raises(Refusal) as refused:
                await _pass(gateway)
            assert refused.value.code is ProblemCode.BUSY
            async with gateway.serving():
                assert stub.running, "the app's own lifespan runs"
                assert (await _pass(gateway)).status == 418
            assert not stub.running

    asyncio.run(run())
