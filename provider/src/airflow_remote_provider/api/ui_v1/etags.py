"""ETags: a repeated request for unchanged data gets 304 without a body."""

from __future__ import annotations

import hashlib
from typing import Any

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class Tagged:
    """ASGI middleware that adds an ETag to every JSON answer to a GET, and answers 304 if the client already has it."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "GET":
            await self.app(scope, receive, send)
            return
        known = {tag.strip().removeprefix("W/") for tag in Headers(scope=scope).get("if-none-match", "").split(",")}
        await self.app(scope, receive, _Tagging(send, known))


class _Tagging:
    """Holds a JSON answer back until it is complete; passes everything else on."""

    def __init__(self, send: Send, known: set[str]) -> None:
        self._send = send
        self._known = known
        self._start: Any = None
        self._body = b""

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start" and _can_be_tagged(message):
            self._start = message
        elif self._start is None or message["type"] != "http.response.body":
            await self._send(message)
        else:
            self._body += message.get("body", b"")
            if not message.get("more_body"):
                await self._finish()

    async def _finish(self) -> None:
        tag = f'"{hashlib.sha256(self._body).hexdigest()[:32]}"'
        headers = [*self._start["headers"], (b"etag", tag.encode()), (b"cache-control", b"private, no-cache")]
        if tag in self._known:
            headers = [(name, value) for name, value in headers if name not in (b"content-length", b"content-type")]
            await self._send({**self._start, "status": 304, "headers": headers})
            await self._send({"type": "http.response.body", "body": b""})
            return
        await self._send({**self._start, "headers": headers})
        await self._send({"type": "http.response.body", "body": self._body})


def _can_be_tagged(start: Message) -> bool:
    return start["status"] == 200 and Headers(raw=start["headers"]).get("content-type") == "application/json"
