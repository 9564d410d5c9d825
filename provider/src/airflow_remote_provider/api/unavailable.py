"""Keeps Airflow's API server starting when a part of ours can't: its routes then say why, with 503 (ADR 0029).

Depends on nothing of ours but :mod:`..faults`, so that it works where the rest can't be imported.
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


def app_or_reason(part: str, create: Callable[[], FastAPI]) -> FastAPI:
    """Return the app that *create* makes; if it raises, one that says why on every route. *part* names it in the log."""
    try:
        return create()
    except Exception as error:
        app = FastAPI(title=part, docs_url=None, redoc_url=None, openapi_url=None)
        _say_why(app, faults.noticed(f"make the {part}", error), {})
        return app


@asynccontextmanager
async def running_or_reason(
    app: FastAPI, part: str, running: AbstractAsyncContextManager[None], headers: Mapping[str, str] | None = None
) -> AsyncIterator[None]:
    """Enter *running* for the app's lifespan; if that raises, every route of *app* says why, with these *headers*.

    No exception of it leaves this.
    """
    try:
        await running.__aenter__()
    except Exception as error:
        _say_why(app, faults.noticed(f"start the {part}", error), headers or {})
        yield
        return
    try:
        yield
    finally:
        try:
            await running.__aexit__(None, None, None)
        except Exception as error:
            faults.noticed(f"end the {part}", error)


def _say_why(app: FastAPI, why: Diagnosis, headers: Mapping[str, str]) -> None:
    restart = "" if "restart" in why.remedy else ". Then restart this API server"
    said = f"{why}{restart}" if why.is_public else "The Remote Executor could not start in this API server; its log says why"
    body = {"title": HTTPStatus(503).phrase, "status": 503, "detail": said, "code": "busy"}
    response = JSONResponse(body, 503, {**headers, "retry-after": str(RETRY_AFTER_S)}, "application/problem+json")
    app.router.routes[:] = [Route("/{path:path}", _Always(response), methods=list(METHODS), include_in_schema=False)]


class _Always:
    """The endpoint of a route: always the same response. No function, which Starlette would call with a request."""

    def __init__(self, response: JSONResponse) -> None:
        self._response = response

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._response(scope, receive, send)
