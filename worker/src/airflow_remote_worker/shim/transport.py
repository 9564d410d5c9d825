"""The Execution API for the Task SDK's client: an httpx transport that sends requests to the daemon's local gateway.

Heartbeats are answered here: the worker's own poll renews the job at central, and a heartbeat that blocked would stall the
supervisor's loop, its logs and in the end the task (a full pipe). A stop is passed to the supervisor as central's answer to a
heartbeat, so that the supervisor ends the task in its usual way.

Writes that :mod:`.writes` lists go to central while it can be reached, else into the job's outbox, and the task continues.
"""

from __future__ import annotations

import json
import sys

from airflow_remote_protocol.bounds import OutOfBounds
from airflow_remote_protocol.execution import CALL_HEADERS, DEFAULT_BODY_BYTES, explain_too_large

from airflow_remote_worker.local import frames
from airflow_remote_worker.shim import writes
from airflow_remote_worker.shim.compat import httpx
from airflow_remote_worker.shim.daemon_client import DaemonClient
from airflow_remote_worker.shim.outbox_writer import Full, OutboxWriter

BASE_URL = "http://central.invalid/execution/"
"""Never resolved. `.invalid` (RFC 6761) makes mistakes visible."""

SERVER_ERROR_PAUSES_S = (1.0, 2.0, 4.0, 8.0)
"""Airflow's client would do the same (5 tries within about 30 s), but would sleep through a stop."""


class TooLong(Exception):
    """A body exceeds the limit; the text names both sizes."""


class GatewayTransport(httpx.BaseTransport):
    """Answers heartbeats and forwards everything else. Without an *outbox*, every call waits for central."""

    def __init__(
        self, gateway: DaemonClient, outbox: OutboxWriter | None = None, *, body_bytes: int = DEFAULT_BODY_BYTES
    ) -> None:
        """*body_bytes*: central's limit for a body when the job was prepared; the daemon knows the current one."""
        self._gateway = gateway
        self._outbox = outbox
        self._body_bytes = body_bytes

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Return the daemon's answer, or a *conflict* if the job must stop. Blocks during an outage."""
        path = request.url.raw_path.decode("ascii").removeprefix(httpx.URL(BASE_URL).path).lstrip("/")
        own_call = (match := frames.OWN_CALL.match(path)) and match["verb"]
        if request.method == "PUT" and own_call == "heartbeat":
            self._gateway.drain()
            return httpx.Response(204) if self._gateway.stop is None else self._verdict()
        if self._gateway.stop is not None and own_call == "run":
            return self._verdict()  # it has not started yet, and must not
        try:
            return self._forward(request, path)
        except OutOfBounds as error:
            return refusal(422, "invalid", f"{request.method} {path[:200]!r} can't be written: {error}")
        except TooLong as error:
            return refusal(413, "too-large", str(error))

    def _forward(self, request: httpx.Request, path: str) -> httpx.Response:
        headers = {name: request.headers[name] for name in CALL_HEADERS if name in request.headers}
        body = request.read()
        if len(body) > self._body_bytes:  # checked here, so that the daemon need not hold it
            raise TooLong(explain_too_large(f"the body of {request.method} {path[:200]}", size=len(body), most=self._body_bytes))
        success = writes.success_of(request.method, path) if self._outbox is not None and self._gateway.stop is None else None
        if success is not None and self._queue_behind_outbox(request.method, path, headers=headers, body=body):
            return httpx.Response(success, json={})
        answer = self._gateway.call(request.method, path, headers=headers, body=body, may_spool=success is not None)
        for pause in SERVER_ERROR_PAUSES_S:
            if not isinstance(answer, frames.Answer) or answer.status < 500:
                break
            self._gateway.wait(pause)
            answer = self._gateway.call(request.method, path, headers=headers, body=body, may_spool=success is not None)
        if isinstance(answer, frames.Spool):
            if success is not None and self._spool(request.method, path, headers=headers, body=body):
                return httpx.Response(success, json={})
            answer = self._gateway.call(request.method, path, headers=headers, body=body)  # waits for central, as reads do
        return as_response(answer.status, answer.headers, answer.body) if isinstance(answer, frames.Answer) else self._verdict()

    def _queue_behind_outbox(self, method: str, path: str, *, headers: dict[str, str], body: bytes) -> bool:
        """Add this write to the outbox if earlier writes are still there; return whether it was added."""
        try:
            waits = self._outbox is not None and self._outbox.waits
        except OSError as error:
            print(f"outbox: can't be read: {error}", file=sys.stderr)
            return False
        return waits and self._spool(method, path, headers=headers, body=body)

    def _spool(self, method: str, path: str, *, headers: dict[str, str], body: bytes) -> bool:
        """Add the call to the outbox; return False if that fails, and the task has to wait for central.

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
        self._gateway.notify_spooled()
        return True

    def _verdict(self) -> httpx.Response:
        stop = self._gateway.stop
        assert stop is not None
        message = stop.detail or f"This job must stop ({stop.reason})."
        return httpx.Response(409, json={"detail": {"reason": stop.reason, "message": message}})


def refusal(status: int, reason: str, message: str) -> httpx.Response:
    """Return a refusal of our own in the Execution API's format."""
    return httpx.Response(status, json={"detail": {"reason": reason, "message": message}})


def as_response(status: int, headers: dict[str, str], body: bytes) -> httpx.Response:
    """Return the daemon's answer as a response that the Task SDK's client understands.

    The client reads details only from `application/json` with a `detail`. So central's problem details (RFC 9457: what was
    refused and what to do about it) are converted into that; otherwise the task's log would only say "403 Forbidden".
    """
    headers = {"content-type": "application/json", **{name.lower(): value for name, value in headers.items()}}
    if headers["content-type"].startswith("application/problem+json"):
        try:
            body = json.dumps({"detail": json.loads(body)}).encode()
            headers["content-type"] = "application/json"
        except ValueError:
            pass  # the client shows the body unchanged
    return httpx.Response(status, headers=headers, content=body)
