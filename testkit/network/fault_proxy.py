"""A proxy on loopback between a worker and central that produces every kind of network failure at a test's command.

    with FaultProxy(central.url) as proxy:
        worker = Worker(…, central=proxy.url, …)
        proxy.black_hole()
        …
        proxy.heal()
        lost = proxy.drop_replies("POST", "/report$")
        …
        assert lost.hits == 1

There are two kinds of fault. One applies to all traffic until `heal()` or the next fault of this kind (`refuse`, `reset`,
`black_hole`, `half_open`, `stall`, `slow`, `answer`). Rules apply to the next *count* requests that match a method and a path
(`drop_replies`, `cut_requests`, `cut_replies`, `answer_to`). A command has taken effect when it returns. The proxy handles
traffic in its own thread; commands can be called from any other thread.
"""

from __future__ import annotations

import asyncio
import re
import socket
import threading
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, TypeVar
from urllib.parse import urlsplit

from testkit.network.conditions import BOTH, Conditions, Exchange, Page, Rule, Way
from testkit.network.connection import LIMIT, Connection, reset

T = TypeVar("T")
ANY = 1_000_000_000
"""A number of requests that no test reaches."""
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
"""Answers of load balancers, proxies and hot spots."""


class FaultProxy:
    """Listens on one port and passes traffic to *upstream* (`http://host:port`), unless a fault is set."""

    def __init__(self, upstream: str) -> None:
        parts = urlsplit(upstream)
        assert parts.hostname and parts.port, f"{upstream}: no host and port"
        self.upstream = (parts.hostname, parts.port)
        self.conditions = Conditions()
        self.exchanges: list[Exchange] = []
        """Every request whose head arrived completely, including those that were never passed on."""
        self._rules: list[Rule] = []
        self._connections: set[Connection] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault proxy", daemon=True)
        self._server: asyncio.Server | None = None
        self.changed = asyncio.Event()
        """Set, and replaced, with each change of the conditions."""
        # Keeps the port bound while nothing listens, so that no other process gets it and connections are refused.
        self._holder = _bound(0)
        self.port = int(self._holder.getsockname()[1])
        self.url = f"http://127.0.0.1:{self.port}"

    def start(self) -> FaultProxy:
        self._thread.start()
        self._do(self._listen())
        return self

    def stop(self) -> None:
        """Cut all connections and end. The proxy can't be started again."""
        self.refuse()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()
        self._holder.close()

    def __enter__(self) -> FaultProxy:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    # -- faults for all traffic

    def heal(self) -> None:
        """Pass all traffic again; rules stay.

        A connection that has lost bytes stays silent until one side closes it, as behind a NAT that has dropped its entry;
        `cut()` closes it.
        """
        self._do(self._set_conditions(Conditions()))

    def refuse(self) -> None:
        """Refuse connections and reset the existing ones, as when the server process has ended."""
        self._do(self._refuse())

    def reset(self) -> None:
        """Reset the existing connections, and each new one immediately."""
        self._do(self._set_conditions(Conditions(resets=True), cut=True))

    def black_hole(self) -> None:
        """Accept connections and swallow everything in both directions, also the close of a connection."""
        self._do(self._set_conditions(Conditions(swallows=BOTH)))

    def half_open(self, way: Way) -> None:
        """Swallow the bytes of one direction, on existing and new connections; the other direction works."""
        self._do(self._set_conditions(Conditions(swallows=frozenset({way}))))

    def stall(self) -> None:
        """Hold all bytes back and deliver them after `heal()`, as with an unplugged cable when neither side times out."""
        self._do(self._set_conditions(Conditions(holds=True)))

    def slow(self, *, latency_s: float = 0, bytes_per_s: float | None = None) -> None:
        """Delay each message by *latency_s* in each direction; limit each direction of each connection to *bytes_per_s*."""
        self._do(self._set_conditions(Conditions(latency_s=latency_s, bytes_per_s=bytes_per_s)))

    def answer(self, page: Page) -> None:
        """Answer every request instead of central, with one of :data:`PAGES`."""
        self._do(self._set_conditions(Conditions(page=page)))

    def cut(self) -> None:
        """Reset the existing connections, once."""
        self._do(self._set_conditions(self.conditions, cut=True))

    # -- faults for single requests

    def drop_replies(self, method: str = "*", path: str = "", *, count: int = 1, when: Callable[[], bool] | None = None) -> Rule:
        """Pass the request, wait for central's whole reply, then reset the connection instead of delivering it.

        With *when*, do so only if it returns true when the reply has arrived. It is called in the proxy's thread and blocks it.
        """
        return self._rule(Rule(method, re.compile(path), count, drop_reply=True, when=when))

    def cut_requests(self, after_bytes: int, method: str = "*", path: str = "", *, count: int = 1) -> Rule:
        """Pass that many bytes (head included) of the request, then reset both sides."""
        return self._rule(Rule(method, re.compile(path), count, cut_request_after=after_bytes))

    def cut_replies(self, after_bytes: int, method: str = "*", path: str = "", *, count: int = 1) -> Rule:
        """Pass that many bytes (head included) of the reply, or all if there are fewer; then reset both sides."""
        return self._rule(Rule(method, re.compile(path), count, cut_reply_after=after_bytes))

    def answer_to(self, page: Page, method: str = "*", path: str = "", *, count: int = 1) -> Rule:
        """Answer instead of central."""
        return self._rule(Rule(method, re.compile(path), count, page=page))

    def forget_rules(self) -> None:
        self._call(self._rules.clear)

    # -- what the proxy has seen

    def count(self, method: str = "*", path: str = "") -> int:
        """Return the number of requests received so far whose path (with query) contains the pattern *path*."""
        pattern = re.compile(path)
        return sum(method in ("*", seen.method) and bool(pattern.search(seen.path)) for seen in list(self.exchanges))

    @property
    def connections(self) -> int:
        """Return the number of open connections of workers."""
        return len(self._connections)

    # -- in the proxy's thread

    def take_rule(self, exchange: Exchange) -> Rule | None:
        """Record the request; return the first rule that matches it, and count that rule down by one."""
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

    async def _set_conditions(self, conditions: Conditions, *, cut: bool = False) -> None:
        self.conditions = conditions
        self.changed.set()
        self.changed = asyncio.Event()
        if cut:
            await self._cut()
        await self._listen()

    async def _refuse(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        self.conditions = Conditions()
        self.changed.set()
        self.changed = asyncio.Event()
        await self._cut()

    async def _cut(self) -> None:
        while self._connections:
            await asyncio.gather(*(connection.end() for connection in list(self._connections)))

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = Connection(self, reader, writer)
        if self.conditions.resets or self._server is None:
            reset(writer)
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


def _bound(port: int) -> socket.socket:
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.bind(("127.0.0.1", port))
    return sock
