"""The Execution API as the Task SDK's client sees it here: an httpx transport that ends in the daemon's local gateway.

Heartbeats are answered on the spot: central vouches for the job through the worker's own poll, and a heartbeat that blocked would
stall the supervisor's loop, its logs and in the end the task (a full pipe). A stop is told to the supervisor in the words that a
heartbeat would bring from central, so that the task ends by the supervisor's own path.

Writes that :mod:`.writes` lists go to central while it can be reached, else into the job's :mod:`.outbox`, and the task goes on.
"""

from __future__ import annotations

import json
import sys

from airflow_remote_protocol.bounds import OutOfBounds
from airflow_remote_protocol.execution import CALL_HEADERS, UNTOLD_BODY_BYTES, too_long

from airflow_remote_worker.local import frames
from airflow_remote_worker.shim import writes
from airflow_remote_worker.shim.compat import httpx
from airflow_remote_worker.shim.daemon_client import DaemonClient
from airflow_remote_worker.shim.outbox_writer import Full, OutboxWriter

BASE_URL = "http://central.invalid/execution/"
"""Never resolved. `.invalid` (RFC 6761) makes a mistake visible."""

SERVER_ERROR_PAUSES_S = (1.0, 2.0, 4.0, 8.0)
"""Airflow's client would do the same (5 tries within about 30 s), but sleep through a stop."""


class TooLong(Exception):
    """A body passes the limit; the text names both."""


class GatewayTransport(httpx.BaseTransport):
    """Answers heartbeats, forwards everything else. Without an *outbox* every call waits for central."""

    def __init__(self, gateway: DaemonClient, outbox: OutboxWriter | None = None, *, body_bytes: int = UNTOLD_BODY_BYTES) -> None:
        """*body_bytes*: how large a body central took when the job was prepared; the daemon knows the present number."""
        self._gateway = gateway
        self._outbox = outbox
        self._body_bytes = body_bytes

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Return the daemon's answer, or the verdict *conflict* when the job must stop. Blocks through an outage."""
        path = request.url.raw_path.decode("ascii").removeprefix(httpx.URL(BASE_URL).path).lstrip("/")
        told = (match := frames.OWN_CALL.match(path)) and match[1]
        if request.method == "PUT" and told == "heartbeat":
            self._gateway.drain()
            return httpx.Response(204) if self._gateway.stop is None else self._verdict()
        if self._gateway.stop is not None and told == "run":
            return self._verdict()  # not started yet: so don't
        try:
            return self._forward(request, path)
        except OutOfBounds as error:
            return refusal(422, "invalid", f"{request.method} {path[:200]!r} can't be written: {error}")
        except TooLong as error:
            return refusal(413, "too-large", str(error))

    def _forward(self, request: httpx.Request, path: str) -> httpx.Response:
        headers = {name: request.headers[name] for name in CALL_HEADERS if name in request.headers}
        body = request.read()
        if len(body) > self._body_bytes:  # here, so that the daemon need not hold it
            raise TooLong(too_long(f"the body of {request.method} {path[:200]}", len(body), self._body_bytes))
        success = writes.success_of(request.method, path) if self._outbox is not None and self._gateway.stop is None else None
        if success is not None and self._follows(request.method, path, headers, body):
            return httpx.Response(success, json={})
        answer = self._gateway.call(request.method, path, headers, body, may_spool=success is not None)
        for pause in SERVER_ERROR_PAUSES_S:
            if not isinstance(answer, frames.Answer) or answer.status < 500:
                break
            self._gateway.wait(pause)
            answer = self._gateway.call(request.method, path, headers, body, may_spool=success is not None)
        if isinstance(answer, frames.Spool):
            if success is not None and self._keep(request.method, path, headers, body):
                return httpx.Response(success, json={})
            answer = self._gateway.call(request.method, path, headers, body)  # waits for central, as reads do
        return as_response(answer.status, answer.headers, answer.body) if isinstance(answer, frames.Answer) else self._verdict()

    def _follows(self, method: str, path: str, headers: dict[str, str], body: bytes) -> bool:
        """Whether an earlier write still waits in the outbox, and this one waits behind it now."""
        try:
            waits = self._outbox is not None and self._outbox.waits
        except OSError as error:
            print(f"outbox: can't be looked at: {error}", file=sys.stderr)
            return False
        return waits and self._keep(method, path, headers, body)

    def _keep(self, method: str, path: str, headers: dict[str, str], body: bytes) -> bool:
        """Keep the call in the outbox; False if it can't be, and the task has to wait for central.

        Raises:
            OutOfBounds: central would refuse it later.
        """
        assert self._outbox is not None
        writes.check(method, path, body)
        try:
            self._outbox.append(frames.Call(id=0, method=method, path=path, headers=headers, body=body))
        except (OSError, Full) as error:
            print(f"outbox: {method} {path} waits for central instead: {error}", file=sys.stderr)
            return False
        self._gateway.tell_spooled()
        return True

    def _verdict(self) -> httpx.Response:
        stop = self._gateway.stop
        assert stop is not None
        message = stop.detail or f"This job must stop ({stop.reason})."
        return httpx.Response(409, json={"detail": {"reason": stop.reason, "message": message}})


def refusal(status: int, reason: str, message: str) -> httpx.Response:
    """Return a refusal of our own in the Execution API's shape."""
    return httpx.Response(status, json={"detail": {"reason": reason, "message": message}})


def as_response(status: int, headers: dict[str, str], body: bytes) -> httpx.Response:
    """Return what the daemon answered in a form that the Task SDK's client understands.

    It reads details only from `application/json` with a `detail` in it. A problem of central (RFC 9457: what was refused and what
    to do about it) is turned into that, or the task's log would say no more than "403 Forbidden".
    """
    headers = {"content-type": "application/json", **{name.lower(): value for name, value in headers.items()}}
    if headers["content-type"].startswith("application/problem+json"):
        try:
            body = json.dumps({"detail": json.loads(body)}).encode()
            headers["content-type"] = "application/json"
        except ValueError:
            pass  # leave the body to the client, which shows it as it is
    return httpx.Response(status, headers=headers, content=body)
