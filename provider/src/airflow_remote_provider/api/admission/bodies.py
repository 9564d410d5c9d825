"""Reads and unpacks request bodies within limits, since a sender can choose any size and any speed."""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Callable

import anyio
from airflow_remote_protocol.errors import ProblemCode
from airflow_remote_protocol.execution import explain_too_large
from starlette.requests import Request

from airflow_remote_provider.api.admission.holdings import holding_of
from airflow_remote_provider.api.problems import Refusal

WINDOW_S = 15.0
LEAST_BYTES_PER_S = 1024
"""The slowest speed that is accepted: at least this many bytes in each window of :data:`WINDOW_S` seconds, or the rest of the
body. The slowest modem is faster; a TCP connection that lost a packet recovers within the window."""


DISCARDED_BYTES = 8 * 1024 * 1024
"""A body that is too large is received and discarded if it is no longer than this: a sender that is still sending when the
connection is closed may never see the answer."""
_KEY = "airflow_remote.body"


async def receive_body(request: Request, most: int, *, admit: Callable[[int], None]) -> int:
    """Read the body as :func:`read_body` does, and keep it for its next caller; return the number of bytes.

    *most* is the gateway's limit, which a refusal names. *admit* gets the announced size and raises `Refusal` to refuse it.
    """
    announced = announced_bytes(request)
    if announced > most:
        with contextlib.suppress(Refusal):
            await read_body(request, most)  # receive a body that is only a little too large first
        raise Refusal(ProblemCode.TOO_LARGE, explain_too_large("the body", size=announced, most=most))
    body = await read_body(request, most, admit=admit)
    request.scope[_KEY] = body
    return len(body)


async def read_body(
    request: Request, most: int, *, window_s: float | None = None, admit: Callable[[int], None] = lambda size: None
) -> bytes:
    """Return the whole body, of at most *most* bytes, from a sender that is never slower than :data:`LEAST_BYTES_PER_S`.

    The bytes count as held by the sending worker from the moment that they are announced. A body that is refused as `busy` is
    received and discarded before the refusal is sent: a sender that is still sending when its connection is closed may never see
    the answer, and would take it for an outage.

    Raises:
        Refusal: `too-large`; `too-slow`; `busy` if the worker, or all workers together, hold too much.
    """
    if _KEY in request.scope:
        received: bytes = request.scope.pop(_KEY)
        return received
    window_s = WINDOW_S if window_s is None else window_s
    announced = announced_bytes(request)
    holding = holding_of(request)
    refused: Refusal | None = None
    if announced > most:
        refused = _too_large(size=announced, most=most)
        if announced > DISCARDED_BYTES:
            raise refused
    else:
        try:
            admit(announced)
            holding.take(announced)
        except Refusal as busy:
            refused = busy
    body = bytearray()
    size = 0
    with anyio.move_on_after(window_s) as window:
        came = 0
        async for chunk in request.stream():
            size += len(chunk)
            if size > max(most, announced):
                raise _too_large(size=size, most=most)
            if refused is None:
                if size > announced:
                    holding.take(len(chunk))
                body += chunk
            came += len(chunk)
            if came >= window_s * LEAST_BYTES_PER_S:
                came, window.deadline = 0, anyio.current_time() + window_s
        if refused is not None:
            raise refused
        return bytes(body)
    raise Refusal(
        ProblemCode.TOO_SLOW,
        f"the body arrived too slowly: {size} bytes in all, fewer than {int(window_s * LEAST_BYTES_PER_S)} of them in the last "
        f"{window_s:g} s; try again on a better connection",
    )


def announced_bytes(request: Request) -> int:
    """Return the `Content-Length` of the request; 0 if it has no valid one (the body is then sent in chunks)."""
    text = request.headers.get("content-length", "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else 0


def _too_large(*, size: int, most: int) -> Refusal:
    return Refusal(ProblemCode.TOO_LARGE, f"the body has {size} bytes or more, which is over the limit of {most} bytes")


def unpack(body: bytes, most: int) -> bytes:
    """Return the unpacked content of a gzip body of at most *most* bytes unpacked.

    Raises:
        Refusal: `invalid` (not gzip, cut off), `too-large`.
    """
    stream = zlib.decompressobj(wbits=31)
    try:
        unpacked = stream.decompress(body, most + 1)
    except zlib.error as error:
        raise Refusal(ProblemCode.INVALID, f"the body is declared as gzip, but can't be unpacked: {error}") from None
    if len(unpacked) > most:
        raise Refusal(ProblemCode.TOO_LARGE, f"the body is over the limit of {most} bytes unpacked")
    if not stream.eof or stream.unused_data:
        raise Refusal(ProblemCode.INVALID, "the gzip body is incomplete, or more data follows it")
    return unpacked
