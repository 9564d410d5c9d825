"""Finds where HTTP/1.1 messages begin and end in a stream; the bytes are passed on unchanged.

Owns framing only. It does not validate messages: a wrong one is passed on, and the receiver rejects it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

PIECE = 64 * 1024
BODYLESS = frozenset({204, 304})


@dataclass(frozen=True)
class Head:
    """The first line and the headers of a request or a reply."""

    raw: bytes
    words: tuple[str, ...]
    """The words of the first line: method, target and version of a request; version, status and reason of a reply."""
    headers: dict[str, str]
    """Names in lower case."""

    @property
    def status(self) -> int:
        return int(self.words[1])


async def read_head(reader: asyncio.StreamReader) -> Head | None:
    """Return the next message's head; None if the peer closed the connection instead.

    Raises:
        OSError: the connection broke.
    """
    try:
        raw = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = raw.decode("latin-1").strip().split("\r\n")
    pairs = (line.partition(":") for line in lines)
    return Head(raw, tuple(first.split(" ", 2)), {name.strip().lower(): value.strip() for name, _, value in pairs})


async def read_body(reader: asyncio.StreamReader, head: Head, *, reply_to: str | None = None) -> AsyncIterator[bytes]:
    """Yield the body after *head* in pieces; for a reply, *reply_to* is the request's method.

    Raises:
        EOFError: the peer closed the connection before the end.
        OSError: the connection broke.
    """
    if reply_to == "HEAD" or (reply_to is not None and head.status in BODYLESS):
        return
    if head.headers.get("transfer-encoding", "").lower() == "chunked":
        async for piece in _chunks(reader):
            yield piece
    elif "content-length" in head.headers:
        async for piece in _exactly(reader, int(head.headers["content-length"])):
            yield piece
    elif reply_to is not None:
        while piece := await reader.read(PIECE):
            yield piece


async def _exactly(reader: asyncio.StreamReader, size: int) -> AsyncIterator[bytes]:
    while size > 0:
        piece = await reader.read(min(size, PIECE))
        if not piece:
            raise EOFError("the peer closed the connection in the middle of a body")
        size -= len(piece)
        yield piece


async def _chunks(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    while True:
        line = await reader.readuntil(b"\r\n")
        yield line
        size = int(line.split(b";")[0], 16)
        if size == 0:
            break
        async for piece in _exactly(reader, size + 2):
            yield piece
    while True:  # trailers, up to the empty line
        line = await reader.readuntil(b"\r\n")
        yield line
        if line == b"\r\n":
            return
