"""Sends a route's answer, and keeps the call's place and held bytes until the client has received the answer.

A client that does not read blocks only its own places. An answer is sent in pieces, each after the previous one was sent, so that
the server's buffer never has more than about one piece.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import ExitStack

import anyio
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from airflow_remote_provider.api.admission.holdings import holding_of
from airflow_remote_provider.api.reports import faults

PIECE = 64 * 1024
"""The high-water mark of the server's buffer."""
PIECE_WITHIN_S = 60.0
"""How long the client may take for one piece: about 1 KiB/s, as for bodies. The answer for a slower client is dropped."""
DRAINED_BYTES = 256 * 1024
"""A body that was refused unread is still received and discarded if it is no longer than this, so that the client gets the
answer. Otherwise the connection is closed. A list of 2,500 jobs has this size."""
_KEY = "airflow_remote.places"


class StreamedResponse(Response):
    """A response whose body is made while it is sent, window by window. *content* is never asked ahead of the client."""

    def __init__(self, content: AsyncIterator[bytes], status: int, headers: Mapping[str, str]) -> None:
        super().__init__(None, status, dict(headers))
        self.content = content


class Endpoint:
    """The ASGI application of one route. *answer* makes the response and must not raise."""

    def __init__(self, answer: Callable[[Request], Awaitable[Response]]) -> None:
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        arrival = _Arrival(receive)
        request = Request(scope, arrival.receive, send)
        with ExitStack() as places:
            scope[_KEY] = places
            try:
                response = await self._answer(request)
                if arrival.is_incomplete and _is_long(request):
                    response.headers["connection"] = "close"
                await _send(request, response, send)
            finally:
                holding_of(request).give_back()


def places_of(request: Request) -> ExitStack:
    """Return the exit stack that keeps this call's places until its answer has been sent."""
    places: ExitStack = request.scope[_KEY]
    return places


class _Arrival:
    """Receives the request's messages, and remembers whether the body was received completely."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self.is_incomplete = True

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] != "http.request" or not message.get("more_body", False):
            self.is_incomplete = False
        return message


def _is_long(request: Request) -> bool:
    length = request.headers.get("content-length", "")
    if not length:
        return "transfer-encoding" in request.headers
    return not length.isdigit() or len(length) > len(str(DRAINED_BYTES)) or int(length) > DRAINED_BYTES


async def _send(request: Request, response: Response, send: Send) -> None:
    await send({"type": "http.response.start", "status": response.status_code, "headers": response.raw_headers})
    if isinstance(response, StreamedResponse) and request.method != "HEAD":
        await _stream(request, response, send)
        return
    body = bytes(response.body)
    if len(body) <= PIECE:
        await send({"type": "http.response.body", "body": body})
        return
    del response.body
    begin = 0
    while begin < len(body):
        with anyio.move_on_after(PIECE_WITHIN_S):
            await send({"type": "http.response.body", "body": body[begin : begin + PIECE], "more_body": True})
            begin += PIECE
            continue
        # Drop the rest but keep the place, so that a client has no more unread connections than places.
        del body
        holding_of(request).give_back()
        await _disconnected(request)
        return
    # The server accepts the last message when it has sent all others.
    await send({"type": "http.response.body", "body": b""})


async def _stream(request: Request, response: StreamedResponse, send: Send) -> None:
    """Send a streamed body until its end, or until the client is gone or too slow.

    The server discards what is sent to a client that is gone, so without a look at the connection the rest would still be read.
    If the body can't be made, the answer ends early: the server closes the connection, and the client sees that bytes lack.
    """
    async with anyio.create_task_group() as group:

        async def watch() -> None:
            await _disconnected(request)
            group.cancel_scope.cancel()

        group.start_soon(watch)
        try:
            async for window in response.content:
                for begin in range(0, len(window), PIECE):
                    with anyio.move_on_after(PIECE_WITHIN_S) as slow:
                        await send({"type": "http.response.body", "body": window[begin : begin + PIECE], "more_body": True})
                    if slow.cancelled_caught:
                        await anyio.sleep_forever()  # until it is gone; it keeps its place, as above
        except Exception as error:
            faults.report_single_failure("send a worker its code", error)
        else:
            await send({"type": "http.response.body", "body": b""})
        group.cancel_scope.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
