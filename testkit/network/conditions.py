"""Network faults as plain values: conditions for all requests, and rules for single requests.

`testkit/network/fault_proxy.py` sets them, `testkit/network/connection.py` applies them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

Way = Literal["requests", "replies"]
BOTH: frozenset[Way] = frozenset({"requests", "replies"})


@dataclass(frozen=True)
class Conditions:
    """The faults that apply to all traffic."""

    swallows: frozenset[Way] = frozenset()
    holds: bool = False
    resets: bool = False
    page: Page | None = None
    latency_s: float = 0
    bytes_per_s: float | None = None


@dataclass(frozen=True)
class Page:
    """An answer that does not come from central."""

    status: int
    body: str
    headers: tuple[tuple[str, str], ...] = ()

    def bytes(self) -> bytes:
        body = self.body.encode()
        headers = [("content-type", "text/html"), ("content-length", str(len(body))), *self.headers]
        lines = [f"HTTP/1.1 {self.status} Whatever", *(f"{name}: {value}" for name, value in headers)]
        return "\r\n".join([*lines, "", ""]).encode() + body


@dataclass(frozen=True)
class Exchange:
    """One request as the proxy received it."""

    method: str
    path: str
    """With its query."""
    at: float
    """`time.monotonic()` when its head was complete."""
    reply: list[int] = field(default_factory=list)
    """The status of central's own reply as soon as it has arrived, even if it is not passed on."""
    reply_bytes: list[int] = field(default_factory=list)
    """Sizes of the pieces of the reply that were passed on, with its head."""


@dataclass
class Rule:
    """A fault for the next *left* requests that match. `hits` counts the requests that it was applied to."""

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
