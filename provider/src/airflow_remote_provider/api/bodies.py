"""Bodies of requests, read and unpacked within bounds: their size and their pace are the sender's word."""

from __future__ import annotations

import zlib

import anyio
from airflow_remote_protocol.errors import ProblemCode
from starlette.requests import Request

from airflow_remote_provider.api.problems import Refusal

BODY_GRACE_S = 30.0
LEAST_BYTES_PER_S = 1024
"""How long a body may take: the grace, and a second more for each so many bytes that came. The slowest modem is faster."""


async def read_body(request: Request, most: int) -> bytes:
    """Read the body, but never more than *most* bytes of it, and not from somebody who sends a byte now and then.

    Raises:
        Refusal: `too-large`, `too-slow`.
    """
    chunks: list[bytes] = []
    size = 0
    with anyio.move_on_after(BODY_GRACE_S) as patience:
        latest = patience.deadline
        async for chunk in request.stream():
            size += len(chunk)
            if size > most:
                raise Refusal(ProblemCode.TOO_LARGE, f"the body is over the limit of {most} bytes")
            chunks.append(chunk)
            patience.deadline = latest + size / LEAST_BYTES_PER_S
        return b"".join(chunks)
    raise Refusal(
        ProblemCode.TOO_SLOW, f"only {size} bytes of the body came in {BODY_GRACE_S:g} s and more; the line is too slow"
    )


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
