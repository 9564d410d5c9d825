"""The network between a worker and central, and every way in which it fails: a proxy on loopback that tests command.

    with FaultProxy(central.url) as proxy:
        worker = Worker(…, central=proxy.url, …)
        proxy.black_hole()
        …
        proxy.heal()
        lost = proxy.drop_replies("POST", "/report$")
        …
        assert lost.hits == 1

Two kinds of fault: one that holds for all traffic until `heal()` or the next one (`refuse`, `reset`, `black_hole`, `half_open`,
`stall`, `slow`, `answer`); and rules for the next *count* requests that match a method and a path (`drop_replies`,
`cut_requests`, `cut_replies`, `answer_to`). Every command has taken effect when it returns. Traffic runs in a thread of the
proxy's own; commands may come from any other.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import struct
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Literal, TypeVar
from urllib.parse import urlsplit

from testkit.http1 import Head, read_body, read_head

T = TypeVar("T")
Way = Literal["requests", "replies"]
BOTH: frozenset[Way] = frozenset({"requests", "replies"})
ANY = 1_000_000_000
"""A count that no test reaches."""
LIMIT = 1 << 20
"""Of one head."""
HUNG_UP = (OSError, EOFError, ValueError, IndexError)
"""What reading and writing raise when an end hangs up, breaks, or speaks no HTTP."""


@dataclass(frozen=True)
class Page:
    """What something that is not central answers."""

    status: int
    body: str
    headers: tuple[tuple[str, str], ...] = ()

    def bytes(self) -> bytes:
        body = self.body.encode()
        headers = [("content-type", "text/html"), ("content-length", str(len(body))), *self.headers]
        lines = [f"HTTP/1.1 {self.status} Whatever", *(f"{name}: {value}" for name, value in headers)]
        return "\r\n".join([*lines, "", ""]).encode() + body


PAGES = {
    "bad gateway": Page(502, "<html><title>502 Bad Gateway</title>lb-7</html>"),
    "no backend": Page(503, "<html><title>503</title>No server is available</html>", (("retry-after", "1"),)),
    "gateway timeout": Page(504, "<html><title>504 Gateway Time-out</title></html>"),
    "internal error": Page(500, "<html>Something went wrong</html>"),
    "login page": Page(200, "<html><form>Log in to the guest network</form></html>"),
    "redirect": Page(302, "", (("location", "http://login.example.com/"),)),
    "forbidden": Page(403, "<html>Blocked by policy</html>"),
    "not found": Page(404, "<html>nginx</html>"),
    "proxy login": Page(407, "<html>Who are you?</html>", (("proxy-authenticate", "Basic realm=x"),)),
}
"""What load balancers, proxies and hot spots say."""


@dataclass(frozen=True)
class Exchange:
    """One request as the proxy saw it."""

    method: str
    path: str
    """With its query."""
    at: float
    """`time.monotonic()` when its head was complete."""
    reply: list[int] = field(default_factory=list)
    """The status of central's own reply, as soon as there is one, whatever became of it."""


@dataclass(frozen=True)
class _Weather:
    """What holds for all traffic."""

    swallows: frozenset[Way] = frozenset()
    holds: bool = False
    resets: bool = False
    page: Page | None = None
    latency_s: float = 0
    bytes_per_s: float | None = None


@dataclass
class Rule:
    """What happens to the next *left* requests that match. `hits` counts those it happened to."""

    method: str
    path: re.Pattern[str]
    left: int
    drop_reply: bool = False
    cut_request_after: int | None = None
    cut_reply_after: int | None = None
    page: Page | None = None
    when: Callable[[], bool] | None = None
    hits: int = 0

    def matches(self, exchange: Exchange) -> bool:
        return self.left > 0 and self.method in ("*", exchange.method) and bool(self.path.search(exchange.path))


class _Cut(Exception):
    """A rule ends this connection."""


class FaultProxy:
    """Stands on one port for all its life and passes to *upstream* (`http://host:port`), unless told otherwise."""

    def __init__(self, upstream: str) -> None:
        parts = urlsplit(upstream)
        assert parts.hostname and parts.port, f"{upstream}: no host and port"
        self.upstream = (parts.hostname, parts.port)
        self.weather = _Weather()
        self.exchanges: list[Exchange] = []
        """Every request whose head came in whole, those that were never passed on included."""
        self._rules: list[Rule] = []
        self._connections: set[_Connection] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault proxy", daemon=True)
        self._server: asyncio.Server | None = None
        self.changed = asyncio.Event()
        """Set, and replaced, with each change of the weather."""
        # Holds the port while nobody listens, so that nothing else gets it and connections are refused.
        self._holder = _bound(0)
        self.port = int(self._holder.getsockname()[1])
        self.url = f"http://127.0.0.1:{self.port}"

    def start(self) -> FaultProxy:
        self._thread.start()
        self._do(self._listen())
        return self

    def stop(self) -> None:
        """Cut all connections and end. There is no second start."""
        self.refuse()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()
        self._holder.close()

    def __enter__(self) -> FaultProxy:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    # -- what holds from now on

    def heal(self) -> None:
        """Pass everything again; rules stay.

        A connection that has lost bytes stays silent until its ends give it up, as behind a NAT that has forgotten it; `cut()`
        ends it.
        """
        self._do(self._turn(_Weather()))

    def refuse(self) -> None:
        """Refuse connections and reset those that exist, as when a machine's server is gone."""
        self._do(self._refuse())

    def reset(self) -> None:
        """Reset those that exist, and each new one as soon as it is there."""
        self._do(self._turn(_Weather(resets=True), cut=True))

    def black_hole(self) -> None:
        """Accept connections, swallow all bytes of both ways, and also that an end hung up."""
        self._do(self._turn(_Weather(swallows=BOTH)))

    def half_open(self, way: Way) -> None:
        """Swallow what goes one way, on connections that exist and new ones; the other way works."""
        self._do(self._turn(_Weather(swallows=frozenset({way}))))

    def stall(self) -> None:
        """Hold all bytes back and deliver them after `heal()`: an unplugged cable, if both ends have patience."""
        self._do(self._turn(_Weather(holds=True)))

    def slow(self, *, latency_s: float = 0, bytes_per_s: float | None = None) -> None:
        """Delay each message, once each way; limit each connection, each way, to *bytes_per_s*."""
        self._do(self._turn(_Weather(latency_s=latency_s, bytes_per_s=bytes_per_s)))

    def answer(self, page: Page) -> None:
        """Answer every request in central's place: one of :data:`PAGES`."""
        self._do(self._turn(_Weather(page=page)))

    def cut(self) -> None:
        """Reset the connections that exist, once."""
        self._do(self._turn(self.weather, cut=True))

    # -- what happens to single requests

    def drop_replies(self, method: str = "*", path: str = "", *, count: int = 1, when: Callable[[], bool] | None = None) -> Rule:
        """Pass the request, wait for central's whole reply, then reset the connection instead of delivering it.

        With *when*, only if that holds when the reply is there. It is asked in the proxy's thread, which stands still meanwhile.
        """
        return self._rule(Rule(method, re.compile(path), count, drop_reply=True, when=when))

    def cut_requests(self, after_bytes: int, method: str = "*", path: str = "", *, count: int = 1) -> Rule:
        """Pass that many bytes (head included) of the request, then reset both sides."""
        return self._rule(Rule(method, re.compile(path), count, cut_request_after=after_bytes))

    def cut_replies(self, after_bytes: int, method: str = "*", path: str = "", *, count: int = 1) -> Rule:
        """Pass that many bytes (head included) of the reply, or all if there are fewer; then reset both sides."""
        return self._rule(Rule(method, re.compile(path), count, cut_reply_after=after_bytes))

    def answer_to(self, page: Page, method: str = "*", path: str = "", *, count: int = 1) -> Rule:
        """Answer in central's place."""
        return self._rule(Rule(method, re.compile(path), count, page=page))

    def forget_rules(self) -> None:
        self._call(self._rules.clear)

    # -- what went by

    def count(self, method: str = "*", path: str = "") -> int:
        """Return how many requests came in so far whose path (with query) contains the pattern *path*."""
        pattern = re.compile(path)
        return sum(method in ("*", seen.method) and bool(pattern.search(seen.path)) for seen in list(self.exchanges))

    @property
    def connections(self) -> int:
        """How many connections of workers there are."""
        return len(self._connections)

    # -- in the proxy's thread

    def fate(self, exchange: Exchange) -> Rule | None:
        """Note the request; return the first rule that is for it, used up by one."""
        self.exchanges.append(exchange)
        for rule in self._rules:
            if rule.matches(exchange):
                rule.left -= 1
                return rule
        return None

    async def _listen(self) -> None:
        if self._server is None:
            listener = _bound(self.port)
            self._server = await asyncio.start_server(self._accept, sock=listener, backlog=512, limit=LIMIT)

    async def _turn(self, weather: _Weather, *, cut: bool = False) -> None:
        self.weather = weather
        self.changed.set()
        self.changed = asyncio.Event()
        if cut:
            await self._cut()
        await self._listen()

    async def _refuse(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        self.weather = _Weather()
        self.changed.set()
        self.changed = asyncio.Event()
        await self._cut()

    async def _cut(self) -> None:
        while self._connections:
            await asyncio.gather(*(connection.end() for connection in list(self._connections)))

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = _Connection(self, reader, writer)
        if self.weather.resets or self._server is None:
            _reset(writer)
            return
        self._connections.add(connection)
        try:
            await connection.serve()
        finally:
            self._connections.discard(connection)

    def _rule(self, rule: Rule) -> Rule:
        self._call(lambda: self._rules.append(rule))
        return rule

    def _call(self, act: Callable[[], object]) -> None:
        async def run() -> None:
            act()

        self._do(run())

    def _do(self, command: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(command, self._loop).result(30)


class _Connection:
    """One connection of a worker, and the one to central that stands behind it: a pump for each way."""

    def __init__(self, proxy: FaultProxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._proxy = proxy
        self._near = (reader, writer)
        self._far: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._lost: set[Way] = set()
        """Ways on which bytes have been swallowed: nothing that comes later would make sense."""
        self._asked: list[tuple[Exchange, Rule | None]] = []
        """Passed on and not answered yet: one, as long as nobody pipelines."""
        self._task: asyncio.Task[None] | None = None
        self._replies: asyncio.Task[None] | None = None
        self._is_cut = False

    async def serve(self) -> None:
        self._task = asyncio.current_task()
        try:
            with contextlib.suppress(*HUNG_UP):
                await self._pass_requests()
            if self._replies is not None and self._is_swallowed("requests"):
                await self._replies  # central doesn't hear that the worker hung up
        except _Cut:
            self._is_cut = True
        except asyncio.CancelledError:
            pass  # told to end, or central hung up; both sides hear of it below
        finally:
            if self._replies is not None:
                self._replies.cancel()
            for side in (self._near, self._far):
                if side is not None:
                    _reset(side[1]) if self._is_cut else side[1].close()

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
        """Yield each request that goes on to central; answer the others here."""
        reader, writer = self._near
        while (head := await read_head(reader)) is not None:
            exchange = Exchange(head.words[0], head.words[1], time.monotonic())
            rule = self._proxy.fate(exchange)
            page = self._proxy.weather.page or (rule.page if rule else None)
            if page is None:
                yield exchange, rule, head
                continue
            async for _ in read_body(reader, head):
                pass
            if rule is not None and rule.page is not None:
                rule.hits += 1
            await self._pass(writer, page.bytes(), "replies")

    async def _pass_request(self, exchange: Exchange, rule: Rule | None, head: Head) -> None:
        self._asked.append((exchange, rule))
        await asyncio.sleep(self._proxy.weather.latency_s)
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
                exchange, rule = self._asked.pop(0)
                exchange.reply.append(head.status)
                await self._pass_reply(exchange, rule, head)
        except _Cut:
            self._is_cut = True
        except HUNG_UP:
            pass
        if self._is_cut or not self._is_swallowed("replies"):
            self._task.cancel()  # else the worker doesn't hear that central hung up

    async def _pass_reply(self, exchange: Exchange, rule: Rule | None, head: Head) -> None:
        assert self._far is not None
        await asyncio.sleep(self._proxy.weather.latency_s)
        if rule and rule.when and not rule.when():
            rule.left += 1
            rule = None
        limit = rule.cut_reply_after if rule else None
        async for piece in _whole(head, read_body(self._far[0], head, reply_to=exchange.method)):
            if rule and rule.drop_reply:
                continue
            await self._pass(self._near[1], piece if limit is None else piece[: max(limit, 0)], "replies")
            limit = None if limit is None else limit - len(piece)
            if limit is not None and limit <= 0:
                break
        if rule and (rule.drop_reply or limit is not None):
            rule.hits += 1
            raise _Cut

    def _is_swallowed(self, way: Way) -> bool:
        if way in self._proxy.weather.swallows:
            self._lost.add(way)
        return way in self._lost

    async def _pass(self, writer: asyncio.StreamWriter | None, piece: bytes, way: Way) -> None:
        """Write the piece as fast as the weather allows, if it does."""
        while self._proxy.weather.holds:
            await self._proxy.changed.wait()
        if self._is_swallowed(way) or writer is None:
            return
        rest = memoryview(piece)
        while rest:
            speed = self._proxy.weather.bytes_per_s
            size = len(rest) if speed is None else max(1, int(speed * 0.05))
            writer.write(bytes(rest[:size]))
            await writer.drain()
            if speed is not None:
                await asyncio.sleep(len(rest[:size]) / speed)
            rest = rest[size:]


async def _whole(head: Head, body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield head.raw
    async for piece in body:
        yield piece


def _reset(writer: asyncio.StreamWriter) -> None:
    """End the connection with a RST instead of a FIN."""
    with contextlib.suppress(OSError):  # it is gone already
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def _bound(port: int) -> socket.socket:
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.bind(("127.0.0.1", port))
    return sock
