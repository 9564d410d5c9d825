"""An answer is under way until the client has received it; only then are the call's place and bytes given back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from airflow_remote_provider.api.admission.holdings import MIB, Content, Holdings, holding_of
from airflow_remote_provider.api.worker_v1 import sending
from airflow_remote_provider.api.worker_v1.sending import PIECE, Endpoint, StreamedResponse, places_of
from starlette.requests import Request
from starlette.responses import Response


class Client:
    """Requests an answer of *size* bytes, and receives its pieces while `reads` is set."""

    def __init__(self, size: int, *, request: tuple[dict[str, Any], ...] = ({"type": "http.request", "body": b""},)) -> None:
        self.reads = asyncio.Event()
        self.gone = asyncio.Event()
        self.sent: list[dict[str, Any]] = []
        self.holdings = Holdings()
        self.under_way = 0
        self._size = size
        self._request = list(request)

    async def ask(self, **headers: str) -> None:
        scope = {"type": "http", "method": "GET", "path": "/", "query_string": b"", "headers": []}
        scope["headers"] = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        await Endpoint(self._answer)(scope, self._receive, self._send)

    async def _answer(self, request: Request) -> Response:
        self.under_way += 1
        places_of(request).callback(self._leave)
        self.holdings.open(request, "w")
        holding_of(request).take(self._size, Content.ANSWER)
        return Response(b"x" * self._size)

    def _leave(self) -> None:
        self.under_way -= 1

    async def _receive(self) -> dict[str, Any]:
        if self._request:
            return self._request.pop(0)
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        if message["type"] == "http.response.body":
            await self.reads.wait()
        self.sent.append(message)

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent)

    @property
    def held(self) -> int:
        return self.holdings.held(Content.ANSWER)


async def _soon() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


@pytest.mark.parametrize("size", [10, PIECE, PIECE + 1, 3 * MIB])
def test_place_and_bytes_are_held_until_the_answer_has_been_sent(size: int) -> None:
    async def check() -> None:
        client = Client(size)
        call = asyncio.ensure_future(client.ask())
        await _soon()
        assert (client.under_way, client.held) == (1, size)
        client.reads.set()
        await asyncio.wait_for(call, 60)
        assert (client.under_way, client.held) == (0, 0)
        assert len(client.body) == size
        assert not client.sent[-1].get("more_body")
        assert max(len(message.get("body", b"")) for message in client.sent) <= PIECE

    asyncio.run(check())


def test_a_client_that_does_not_read_keeps_only_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sending, "PIECE_WITHIN_S", 0.05)

    async def check() -> None:
        client = Client(3 * MIB)
        call = asyncio.ensure_future(client.ask())
        await asyncio.sleep(0.3)
        assert (client.under_way, client.held) == (1, 0), "the answer is dropped, the connection still counts"
        client.reads.set()
        await _soon()
        assert all(message.get("more_body", True) for message in client.sent), "half an answer must not look like a whole one"
        client.gone.set()
        await asyncio.wait_for(call, 60)
        assert client.under_way == 0

    asyncio.run(check())


def test_a_call_that_is_cancelled_gives_everything_back() -> None:
    async def check() -> None:
        client = Client(3 * MIB)
        call = asyncio.ensure_future(client.ask())
        await _soon()
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        assert (client.under_way, client.held) == (0, 0)

    asyncio.run(check())


@pytest.mark.parametrize(
    ("headers", "closes"),
    [
        ({"content_length": "100"}, False),
        ({"content_length": str(1 << 20)}, True),
        ({"content_length": "x"}, True),
        ({"transfer_encoding": "chunked"}, True),
        ({}, False),
    ],
)
def test_a_long_unread_body_is_not_received_after_the_answer(headers: dict[str, str], closes: bool) -> None:
    async def check() -> None:
        client = Client(10)
        client.reads.set()
        await client.ask(**headers)
        assert ((b"connection", b"close") in client.sent[0]["headers"]) is closes

    asyncio.run(check())


class Download(Client):
    """Requests a streamed answer of *size* bytes in windows; *fails* after so many windows."""

    def __init__(self, size: int, *, fails: int | None = None, method: str = "GET") -> None:
        super().__init__(size)
        self.asked_for = 0
        self._fails = fails
        self._method = method

    async def _answer(self, request: Request) -> Response:
        request.scope["method"] = self._method
        self.under_way += 1
        places_of(request).callback(self._leave)
        return StreamedResponse(self._windows(), 206, {"content-length": str(self._size)})

    async def _windows(self) -> AsyncIterator[bytes]:
        for begin in range(0, self._size, WINDOW):
            self.asked_for += 1
            if self.asked_for == self._fails:
                raise OSError("the store is gone")
            yield b"x" * min(WINDOW, self._size - begin)


WINDOW = 256 * 1024


@pytest.mark.parametrize("size", [0, 10, WINDOW, 3 * MIB + 5])
def test_a_streamed_answer_is_made_as_fast_as_the_client_reads(size: int) -> None:
    async def check() -> None:
        client = Download(size)
        call = asyncio.ensure_future(client.ask())
        await _soon()
        assert client.under_way == 1 and client.asked_for <= 1, "nothing is made ahead of the client"
        client.reads.set()
        await asyncio.wait_for(call, 5)
        assert (client.under_way, len(client.body), client.sent[0]["status"]) == (0, size, 206)
        assert not client.sent[-1].get("more_body")
        assert max(len(message.get("body", b"")) for message in client.sent) <= PIECE

    asyncio.run(check())


def test_a_streamed_answer_ends_when_its_client_is_gone() -> None:
    async def check() -> None:
        client = Download(100 * MIB)
        call = asyncio.ensure_future(client.ask())
        await _soon()
        client.gone.set()
        await asyncio.wait_for(call, 5)
        assert client.under_way == 0 and client.asked_for == 1
        assert all(message.get("more_body", True) for message in client.sent)

    asyncio.run(check())


def test_a_streamed_answer_that_nobody_reads_keeps_only_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sending, "PIECE_WITHIN_S", 0.05)

    async def check() -> None:
        client = Download(3 * MIB)
        call = asyncio.ensure_future(client.ask())
        await asyncio.sleep(0.3)
        assert client.under_way == 1 and client.asked_for == 1
        client.reads.set()
        await _soon()
        assert all(message.get("more_body", True) for message in client.sent), "half an answer must not look like a whole one"
        client.gone.set()
        await asyncio.wait_for(call, 5)
        assert client.under_way == 0

    asyncio.run(check())


def test_a_streamed_answer_that_can_t_be_made_ends_early() -> None:
    async def check() -> None:
        client = Download(3 * MIB, fails=3)
        client.reads.set()
        await asyncio.wait_for(client.ask(), 5)
        assert client.under_way == 0 and len(client.body) == 2 * WINDOW
        assert all(message.get("more_body", True) for message in client.sent)

    asyncio.run(check())


def test_the_headers_of_a_streamed_answer_cost_no_body() -> None:
    async def check() -> None:
        client = Download(3 * MIB, method="HEAD")
        client.reads.set()
        await asyncio.wait_for(client.ask(), 5)
        assert (client.asked_for, client.body, client.sent[0]["status"]) == (0, b"", 206)

    asyncio.run(check())
