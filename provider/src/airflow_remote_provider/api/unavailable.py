"""Lets Airflow's API server start if a part of this package can't: its routes then answer 503 with the reason (ADR 0029).

Imports only :mod:`..faults` of this package, so that it works where the rest can't be imported.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from http import HTTPStatus

from fastapi import FastAPI
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from airflow_remote_provider.api.reports import faults
from airflow_remote_provider.faults import Diagnosis

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
RETRY_AFTER_S = 60


def create_or_explain(part: str, create: Callable[[], FastAPI]) -> FastAPI:
    """Return the app that *create* makes; if it raises, an app that answers every route with the reason.

    *part* is the name in the log.
    """
    try:
        return create()
    except Exception as error:
        app = FastAPI(title=part, docs_url=None, redoc_url=None, openapi_url=None)
        _answer_with_reason(app, faults.report_single_failure(f"make the {part}", error), {})
        return app


@asynccontextmanager
async def run_or_explain(
    app: FastAPI, part: str, running: AbstractAsyncContextManager[None], *, headers: Mapping[str, str] | None = None
) -> AsyncIterator[None]:
    """Enter *running* for the app's lifespan; if that raises, answer every route of *app* with the reason and *headers*.

    Exceptions of *running* are not raised.
    """
    try:
        await running.__aenter__()
    except Exception as error:
        _answer_with_reason(app, faults.report_single_failure(f"start the {part}", error), headers or {})
        yield
        return
    try:
        yield
    finally:
        try:
            await running.__aexit__(None, None, None)
        except Exception as error:
            faults.report_single_failure(f"end the {part}", error)


def _answer_with_reason(app: FastAPI, why: Diagnosis, headers: Mapping[str, str]) -> None:
    restart = "" if "restart" in why.remedy else ". Then restart this API server"
    said = f"{why}{restart}" if why.is_public else "The Remote Executor could not start in this API server; its log says why"
    body = {"title": HTTPStatus(503).phrase, "status": 503, "detail": said, "code": "busy"}
    response = JSONResponse(body, 503, {**headers, "retry-after": str(RETRY_AFTER_S)}, "application/problem+json")
    app.router.routes[:] = [Route("/{path:path}", _Always(response), methods=list(METHODS), include_in_schema=False)]


class _Always:
    """The endpoint of a route that always sends the same response. Not a function, which Starlette would call with a request."""

    def __init__(self, response: JSONResponse) -> None:
        self._response = response

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._response(scope, receive, send)
