"""One connection through the fault proxy: two tasks, one for each direction, apply the conditions and the rules to the bytes."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import time
from collections.abc import AsyncIterator
from typing import Protocol

from testkit.network.conditions import Conditions, Exchange, Rule, Way
from testkit.network.http1 import Head, read_body, read_head

LIMIT = 1 << 20
"""The largest head, in bytes."""
HUNG_UP = (OSError, EOFError, ValueError, IndexError)
"""Raised by reads and writes when one side closes or breaks the connection, or does not speak HTTP."""


class Proxy(Protocol):
    """The part of the proxy that a connection uses."""

    upstream: tuple[str, int]
    conditions: Conditions
    changed: asyncio.Event
    """Set, and replaced, with each change of the conditions."""

    def take_rule(self, exchange: Exchange) -> Rule | None:
        """Record the request; return the first rule that matches it, and count that rule down by one."""


class Connection:
    """One connection of a worker and the connection to central that belongs to it: one task for each direction."""

    def __init__(self, proxy: Proxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._proxy = proxy
        self._near = (reader, writer)
        self._far: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._lost: set[Way] = set()
        """Directions in which bytes have been swallowed: later bytes would have no meaning without them."""
        self._unanswered: list[tuple[Exchange, Rule | None]] = []
        """Requests that were passed on and not answered yet: at most one, unless the client pipelines."""
        self._task: asyncio.Task[None] | None = None
        self._replies: asyncio.Task[None] | None = None
        self._is_cut = False

    async def serve(self) -> None:
        self._task = asyncio.current_task()
        try:
            with contextlib.suppress(*HUNG_UP):
                await self._pass_requests()
            if self._replies is not None and self._is_swallowed("requests"):
                await self._replies  # central is not notified that the worker closed the connection
        except _Cut:
            self._is_cut = True
        except asyncio.CancelledError:
            pass  # `end()` was called, or central closed the connection; both sides are closed below
        finally:
            if self._replies is not None:
                self._replies.cancel()
            for side in (self._near, self._far):
                if side is not None:
                    reset(side[1]) if self._is_cut else side[1].close()

    async def end(self) -> None:
        """Reset both sides."""
        self._is_cut = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        else:
            await asyncio.sleep(0)  # it has not begun yet

    async def _pass_requests(self) -> None:
        async for exchange, rule, head in self._requests():
            if self._far is None and not self._is_swallowed("requests"):
                self._far = await asyncio.open_connection(*self._proxy.upstream, limit=LIMIT)
                self._replies = asyncio.create_task(self._pass_replies(), name="replies")
            await self._pass_request(exchange, rule, head)

    async def _requests(self) -> AsyncIterator[tuple[Exchange, Rule | None, Head]]:
        """Yield each request that is to be passed on to central; answer the others."""
        reader, writer = self._near
        while (head := await read_head(reader)) is not None:
            exchange = Exchange(head.words[0], head.words[1], time.monotonic())
            rule = self._proxy.take_rule(exchange)
            page = self._proxy.conditions.page or (rule.page if rule else None)
            if page is None:
                yield exchange, rule, head
                continue
            async for _ in read_body(reader, head):
                pass
            if rule is not None and rule.page is not None:
                rule.hits += 1
            await self._pass(writer, page.bytes(), "replies")

    async def _pass_request(self, exchange: Exchange, rule: Rule | None, head: Head) -> None:
        self._unanswered.append((exchange, rule))
        await asyncio.sleep(self._proxy.conditions.latency_s)
        limit = rule.cut_request_after if rule else None
        async for piece in _whole(head, read_body(self._near[0], head)):
            writer = self._far[1] if self._far else None
            if limit is None or len(piece) < limit:
                await self._pass(writer, piece, "requests")
            else:
                await self._pass(writer, piece[:limit], "requests")
                if rule:
                    rule.hits += 1
                raise _Cut
            limit = None if limit is None else limit - len(piece)

    async def _pass_replies(self) -> None:
        assert self._far is not None and self._task is not None
        try:
            while (head := await read_head(self._far[0])) is not None:
                if head.words[1] == "100":
                    await self._pass(self._near[1], head.raw, "replies")
                    continue
                exchange, rule = self._unanswered.pop(0)
                exchange.reply.append(head.status)
                await self._pass_reply(exchange, rule, head)
        except _Cut:
            self._is_cut = True
        except HUNG_UP:
            pass
        if self._is_cut or not self._is_swallowed("replies"):
            self._task.cancel()  # else the worker is not notified that central closed the connection

    async def _pass_reply(self, exchange: Exchange, rule: Rule | None, head: Head) -> None:
        assert self._far is not None
        await asyncio.sleep(self._proxy.conditions.latency_s)
        if rule and rule.when and not rule.when():
            rule.left += 1
            rule = None
        limit = rule.cut_reply_after if rule else None
        async for piece in _whole(head, read_body(self._far[0], head, reply_to=exchange.method)):
            if rule and rule.drop_reply:
                continue
            passed = piece if limit is None else piece[: max(limit, 0)]
            exchange.reply_bytes.append(len(passed))
            await self._pass(self._near[1], passed, "replies")
            limit = None if limit is None else limit - len(piece)
            if limit is not None and limit <= 0:
                break
        if rule and (rule.drop_reply or limit is not None):
            rule.hits += 1
            raise _Cut

    def _is_swallowed(self, way: Way) -> bool:
        if way in self._proxy.conditions.swallows:
            self._lost.add(way)
        return way in self._lost

    async def _pass(self, writer: asyncio.StreamWriter | None, piece: bytes, way: Way) -> None:
        """Write the piece at the speed that the conditions allow, unless they swallow it."""
        while self._proxy.conditions.holds:
            await self._proxy.changed.wait()
        if self._is_swallowed(way) or writer is None:
            return
        rest = memoryview(piece)
        while rest:
            speed = self._proxy.conditions.bytes_per_s
            size = len(rest) if speed is None else max(1, int(speed * 0.05))
            writer.write(bytes(rest[:size]))
            await writer.drain()
            if speed is not None:
                await asyncio.sleep(len(rest[:size]) / speed)
            rest = rest[size:]


class _Cut(Exception):
    """A rule ends this connection."""


async def _whole(head: Head, body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield head.raw
    async for piece in body:
        yield piece


def reset(writer: asyncio.StreamWriter) -> None:
    """End the connection with a RST instead of a FIN."""
    with contextlib.suppress(OSError):  # it is gone already
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
