"""Turns errors into responses with a problem code, and adds the marker header to every response."""

from __future__ import annotations

import logging
import math
import random

from airflow_remote_protocol.codec import Malformed, encode
from airflow_remote_protocol.errors import ProblemCode, make_problem
from airflow_remote_protocol.version import MARKER_HEADER, PROBLEM_HEADER, PROTOCOL_VERSION
from sqlalchemy.exc import DataError, DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from airflow_remote_provider.api.reports import faults
from airflow_remote_provider.ledger.errors import LedgerError
from airflow_remote_provider.ledger.presentable import presentable
from airflow_remote_provider.stores import Unstorable

log = logging.getLogger(__name__)

RETRY_AFTER_S = 5.0
"""The default time to retry: for a database that restarts, or a bug of ours."""
SPREAD = 0.5
"""The default is lengthened at random by up to this part of it, so that callers that failed together don't retry together."""


LEFT_UNREAD = frozenset({ProblemCode.TOO_LARGE, ProblemCode.TOO_SLOW})
"""With these the rest of the request body is not received."""


class Refusal(Exception):
    """A request that is answered with a problem."""

    def __init__(self, code: ProblemCode, detail: str, *, size: int | None = None, retry_after_s: float | None = None) -> None:
        super().__init__(detail)
        self.code = code
        self.size = size
        self.retry_after_s = retry_after_s


NOT_GRANTED = "not_granted"


class NotGranted(Exception):
    """No grant allows a job's call. Answered in the format of the Execution API, because the task reads it, not the worker."""


TOO_MUCH_WRITTEN = "too_much_written"


class TooMuchWritten(Exception):
    """A job has reached its limit of writes. Answered in the format of the Execution API, for the task, not the worker."""


def problem_response(code: ProblemCode, detail: str, *, size: int | None = None, retry_after_s: float | None = None) -> Response:
    body = make_problem(code, detail, size=size)
    headers = {PROBLEM_HEADER: code.value}
    if body.status >= 500 or retry_after_s is not None:
        wait_s = RETRY_AFTER_S * (1 + SPREAD * random.random()) if retry_after_s is None else retry_after_s
        headers["retry-after"] = str(max(1, math.ceil(wait_s)))  # whole seconds: RFC 9110, 10.2.3
    if code in LEFT_UNREAD:
        headers["connection"] = "close"
    return Response(encode(body), body.status, headers, media_type="application/problem+json")


def as_response(error: Exception) -> Response:
    """Return the response for an exception of a route. An unexpected one is `internal`: it is logged, and the worker retries."""
    if isinstance(error, Refusal):
        return problem_response(error.code, str(error), size=error.size, retry_after_s=error.retry_after_s)
    if isinstance(error, NotGranted):
        return JSONResponse({"detail": {"reason": NOT_GRANTED, "message": str(error)}}, 403)
    if isinstance(error, TooMuchWritten):
        return JSONResponse({"detail": {"reason": TOO_MUCH_WRITTEN, "message": str(error)}}, 413)
    if isinstance(error, LedgerError):
        return problem_response(error.code, str(error))
    if isinstance(error, Unstorable):
        log.warning("Refused a part of a task log: %s", error)
        return problem_response(ProblemCode.INVALID, str(error))
    if isinstance(error, Malformed):
        return problem_response(ProblemCode.INVALID, str(error))
    if isinstance(error, DataError):
        log.warning("The database can't store a value that a worker sent: %s", presentable(str(error.orig), longest=500))
        return problem_response(ProblemCode.INVALID, "central's database can't store a value in this request")
    if isinstance(error, (DBAPIError, PoolTimeout)):
        found = faults.report_single_failure("answer a worker's request", error)
        said = str(found) if found.is_public else "central's database does not answer; try again later"
        return problem_response(ProblemCode.BUSY, said)
    faults.report_single_failure("answer a worker's request", error)
    return problem_response(ProblemCode.INTERNAL, "central failed on this request; its log says why")


class Marked:
    """ASGI middleware that adds the marker header to every response of the app, including errors and unknown routes."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def mark(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), (MARKER_HEADER.encode(), PROTOCOL_VERSION.encode())]
            await send(message)

        await self.app(scope, receive, mark)
