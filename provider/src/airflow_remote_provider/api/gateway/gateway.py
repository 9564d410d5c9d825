"""Passes a task's Execution API calls on: in process, each with a new token, and a limited number at once.

No Airflow token leaves central. The Execution API itself checks that the path names the token's task instance.
"""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import AsyncIterator, Callable, Iterator, MutableMapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

from airflow_remote_protocol.errors import ProblemCode
from airflow_remote_protocol.execution import ANSWER_HEADERS, CALL_HEADERS
from starlette.types import ASGIApp, Message

from airflow_remote_provider import compat, metrics
from airflow_remote_provider.api.admission.lanes import Lane
from airflow_remote_provider.api.gateway.failures import ServerFailed
from airflow_remote_provider.api.gateway.rights import token_scope
from airflow_remote_provider.api.gateway.rules import Match, Meaning
from airflow_remote_provider.api.problems import Refusal
from airflow_remote_provider.ledger.fence import Subject

PASSED_IN = frozenset({*(name.encode() for name in CALL_HEADERS), b"traceparent", b"tracestate"})
PASSED_OUT = frozenset(name.encode() for name in ANSWER_HEADERS)

log = logging.getLogger(__name__)

CALLS_WAIT = 512
"""How many calls may wait: about three seconds' work."""


@dataclass(frozen=True)
class Passed:
    """The Execution API's own answer."""

    status: int
    headers: dict[str, str]
    body: bytes


class Gateway:
    """Owns a running Execution API application, which is called over ASGI without a socket."""

    def __init__(self, concurrency: int, execution_api: Callable[[], Any] = compat.execution_api_app) -> None:
        self._lane = Lane("the Execution API", at_once=concurrency, waiting=CALLS_WAIT)
        self._make_app = execution_api
        self._app: ASGIApp | None = None
        self._tokens = compat.execution_token_generator()

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """Build the application and enter its lifespan. Make the first call here, since that builds the routers."""
        app = self._make_app()
        async with app.router.lifespan_context(app):
            self._app = app
            with _collector_paused():
                await self._call(method="GET", decoded="health", raw="health", query=b"", headers=[], body=b"", subject=None)
            yield
            self._app = None

    async def pass_on(
        self, match: Match, *, query: bytes, headers: list[tuple[bytes, bytes]], body: bytes, subject: Subject
    ) -> Passed:
        """Call the Execution API on behalf of *subject* and return its answer.

        Raises:
            Refusal: `busy`.
            ServerFailed: the Execution API failed, and has logged why.
        """
        metrics.count("remote.gateway.calls")
        return await self._call(
            method=match.method,
            decoded=match.decoded,
            raw=match.raw,
            query=query,
            headers=headers,
            body=body,
            subject=subject,
            meaning=match.meaning,
        )

    async def _call(
        self,
        *,
        method: str,
        decoded: str,
        raw: str,
        query: bytes,
        headers: list[tuple[bytes, bytes]],
        body: bytes,
        subject: Subject | None,
        meaning: Meaning = Meaning.OTHER,
    ) -> Passed:
        if self._app is None:
            raise Refusal(ProblemCode.BUSY, "central is starting or shutting down; try again later")
        # Airflow reads the headers as text, and writes some of them into its log.
        passed = [(name, value) for name, value in headers if name in PASSED_IN and value.isascii()]
        passed += [(b"host", b"central"), (b"content-length", str(len(body)).encode())]
        scope: dict[str, Any] = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": f"/{decoded}",
            "raw_path": f"/{raw}".encode(),
            "root_path": "",
            "query_string": query,
            "client": ("127.0.0.1", 0),
            "server": ("central", 80),
        }
        async with self._lane.place():
            answer = await _drive(self._app, {**scope, "headers": passed + self._authorization(subject, meaning)}, body)
            if compat.refuses_token(answer.status, answer.body):
                # The token is new, so the clock has jumped since. Nothing was done yet.
                answer = await _drive(self._app, {**scope, "headers": passed + self._authorization(subject, meaning)}, body)
            return answer

    def _authorization(self, subject: Subject | None, meaning: Meaning) -> list[tuple[bytes, bytes]]:
        """Return the header with a new token for *subject*."""
        if subject is None:
            return []
        token = self._tokens.generate(extras={"sub": str(subject.id), "scope": token_scope(subject.kind, meaning)})
        return [(b"authorization", f"Bearer {token}".encode())]


@contextmanager
def _collector_paused() -> Iterator[None]:
    """Pause Python's garbage collector. It takes a quarter of the time that the routers take, and finds nothing: they stay."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


async def _drive(app: ASGIApp, scope: MutableMapping[str, Any], body: bytes) -> Passed:
    """Run one request through an ASGI app and collect the response.

    Raises:
        ServerFailed: the app has answered 500. If that was for an exception, it has logged it.
    """
    sent = False
    done = asyncio.Event()
    status = 500
    headers: dict[str, str] = {}
    chunks: list[bytes] = []

    async def receive() -> Message:
        nonlocal sent
        if sent:
            await done.wait()
            return {"type": "http.disconnect"}
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Message) -> None:
        nonlocal status
        if message["type"] == "http.response.start":
            status = message["status"]
            headers.update({k.decode("latin-1"): v.decode("latin-1") for k, v in message["headers"] if k.lower() in PASSED_OUT})
        elif message["type"] == "http.response.body":
            chunks.append(message.get("body", b""))
            if not message.get("more_body"):
                done.set()

    try:
        await app(scope, receive, send)
    except Exception as error:
        # Starlette raises the exception again after the app has logged it and answered, for servers that would not know of it.
        if status == 500 and done.is_set():
            log.warning("The Execution API failed on a job's call (%s); it has logged the traceback", type(error).__name__)
            raise ServerFailed from error
        raise
    finally:
        done.set()
    return Passed(status, headers, b"".join(chunks))
