"""Bodies of requests, read and unpacked within bounds: their size and their pace are the sender's choice."""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Callable

import anyio
from airflow_remote_protocol.errors import ProblemCode
from airflow_remote_protocol.execution import too_long
from starlette.requests import Request

from airflow_remote_provider.api.admission.holdings import holding_of
from airflow_remote_provider.api.problems import Refusal

WINDOW_S = 15.0
LEAST_BYTES_PER_S = 1024
"""The least pace: in each window of so many seconds at least so many bytes must come, or the rest of the body. The slowest modem
is faster; a TCP connection that lost a packet recovers within the window."""


DISCARDED_BYTES = 8 * 1024 * 1024
"""A body that is too large is received to its end, and forgotten, if it is no longer than this: a sender that still sends when
the connection is closed may never see the answer."""
_KEY = "airflow_remote.body"


async def receive_body(request: Request, most: int, *, admit: Callable[[int], None]) -> int:
    """Read the body as :func:`read_body` does, and keep it for the next caller of that; return how many bytes it has.

    *most* is the gateway's limit, which a refusal names. *admit* raises a refusal of a body of so many bytes.
    """
    announced = announced_bytes(request)
    if announced > most:
        with contextlib.suppress(Refusal):
            await read_body(request, most)  # a body that is not much too large is taken off the line first
        raise Refusal(ProblemCode.TOO_LARGE, too_long("the body", announced, most))
    body = await read_body(request, most, admit=admit)
    request.scope[_KEY] = body
    return len(body)


async def read_body(
    request: Request, most: int, *, window_s: float | None = None, admit: Callable[[int], None] = lambda size: None
) -> bytes:
    """Return the whole body, of at most *most* bytes, from a sender that keeps the least pace until the end.

    The bytes count as held by the worker that sends them, from the moment that they are announced. A body for which there is no
    room is received and forgotten before that is said: a sender that still sends when its connection is closed may never see the
    answer, and would take it for an outage.

    Raises:
        Refusal: `too-large`, `too-slow`; `busy` if the worker, or all workers together, hold too much.
    """
    if _KEY in request.scope:
        received: bytes = request.scope.pop(_KEY)
        return received
    window_s = WINDOW_S if window_s is None else window_s
    announced = announced_bytes(request)
    holding = holding_of(request)
    refused: Refusal | None = None
    if announced > most:
        refused = _too_large(announced, most)
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
                raise _too_large(size, most)
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
        f"the body came too slowly: {size} bytes in all, fewer than {int(window_s * LEAST_BYTES_PER_S)} of them in the last "
        f"{window_s:g} s; try again on a better connection",
    )


def announced_bytes(request: Request) -> int:
    """Return the length that the request's head announces; 0 if none does (the body then comes in chunks)."""
    text = request.headers.get("content-length", "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else 0


def _too_large(size: int, most: int) -> Refusal:
    return Refusal(ProblemCode.TOO_LARGE, f"the body has {size} bytes or more, which is over the limit of {most} bytes")


def unpack(body: bytes, most: int) -> bytes:
    """Return what gzip packed, but never more than *most* bytes of it.

    Raises:
        Refusal: `invalid` (not gzip, cut off), `too-large`.
    """
    stream = zlib.decompressobj(wbits=31)
    try:
        unpacked = stream.decompress(body, most + 1)
    except zlib.error as error:
        raise Refusal(ProblemCode.INVALID, f"the body says that it is gzip, but: {error}") from None
    if len(unpacked) > most:
        raise Refusal(ProblemCode.TOO_LARGE, f"the body is over the limit of {most} bytes unpacked")
    if not stream.eof or stream.unused_data:
        raise Refusal(ProblemCode.INVALID, "the gzip body was cut off, or something follows it")
    return unpacked
