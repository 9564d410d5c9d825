"""Creates the REST API. Its routes share a small pool of ledger threads, separate from the workers' pool."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from fastapi import Depends, FastAPI, Request
from pydantic import BaseModel
from starlette.types import Receive, Scope, Send

from airflow_remote_provider import __version__, compat
from airflow_remote_provider.api.pool import LedgerPool
from airflow_remote_provider.api.shutdown import on_shutdown_signal
from airflow_remote_provider.api.ui_v1 import (
    audit,
    bulk,
    bundles,
    history,
    incidents,
    jobs,
    live,
    queues,
    releases,
    runtimes,
    statements,
    summary,
    tokens,
    uploads,
    worker_log,
    workers,
)
from airflow_remote_provider.api.ui_v1.caller import CallerDep, LocalUser, Scopes
from airflow_remote_provider.api.ui_v1.etags import Tagged
from airflow_remote_provider.api.ui_v1.problems import Problem, answer_failures, answer_refusals, describe_errors
from airflow_remote_provider.api.ui_v1.pulse import Watch
from airflow_remote_provider.api.ui_v1.routes import Routes
from airflow_remote_provider.api.unavailable import run_or_explain

T = TypeVar("T")

THREADS = 2
"""Ledger threads: few, so that users wait for each other and leave the database to the workers."""

router = Routes()
PARTS = (
    *(workers, worker_log, bulk, tokens, queues, uploads, bundles, runtimes, releases, statements),
    *(history, jobs, incidents, audit, summary),
)
"""What each way to call the API has. Streams of events (`live`) and `/me` are for pages and programs."""


class Me(BaseModel):
    name: str
    may_manage: bool
    """Whether the user may manage workers, enrolment tokens, queues and policies that belong to no team."""


@router.get("/me", summary="Show the user's name and permission to manage")
async def me(caller: CallerDep) -> Me:
    return Me(name=caller.name, may_manage=await caller.may_manage())


def create_rest_api() -> FastAPI:
    """Return the app that the plugin mounts under `/remote/ui/v1`. Nothing runs before its lifespan is entered."""
    from airflow_remote_provider.api.ui_v1.authentication import authenticate  # loads Airflow's API, which local calls don't need

    @asynccontextmanager
    async def running(app: FastAPI) -> AsyncIterator[None]:
        app.state.pool, app.state.scopes = LedgerPool(THREADS), Scopes()
        app.state.watch = Watch(app.state.pool)
        restore = on_shutdown_signal(app.state.watch.close)
        try:
            yield
        finally:
            restore()
            app.state.watch.close()
            app.state.pool.close()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with run_or_explain(app, "REST API", running(app)):
            yield

    app = _app(authenticate, lifespan=lifespan)
    for routes in (router, *(part.router for part in PARTS), live.router):
        for route in routes.declared:
            route.add_to(app)
    answer_failures(app)

    @app.get("/openapi.json", include_in_schema=False)
    async def openapi() -> dict[str, Any]:
        return document(app)

    return app


class LocalApi:
    """ASGI app: the same routes for calls within this process, all of them by *user* of the operating system.

    This user may do everything. Nothing about the caller is taken from a request, so this must never be served.
    It needs no lifespan: it has no threads and no streams, and a call holds the event loop until it has ended.
    What fails, such as the database, is raised. A route is added when it is first called: to add all takes 0.2 s.
    """

    def __init__(self, user: str) -> None:
        caller = LocalUser(user, LocalLedger())

        async def identify(request: Request) -> None:
            request.state.remote_caller = caller

        self._app = _app(identify)
        self._missing = [route for part in PARTS for route in part.router.declared]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        for route in [route for route in self._missing if route.may_match(scope["method"], scope["path"])]:
            route.add_to(self._app)
            self._missing.remove(route)
        await self._app(scope, receive, send)


class LocalLedger:
    """Runs each call where it is, in a transaction of its own."""

    async def call(self, verb: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        return compat.in_transaction(lambda session: verb(session, *args, **kwargs))

    async def blocking(self, work: Callable[[], T]) -> T:
        return work()


def _app(identify: Callable[..., Any], **options: Any) -> FastAPI:
    """Return an app without routes, whose callers the dependency *identify* puts into the state of their requests."""
    app = FastAPI(
        title="Remote Executor",
        version=__version__,
        description="Remote Workers, their queues and jobs, for users and their programs.",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        dependencies=[Depends(identify)],
        responses=describe_errors(401, 403, 404, 422, 503),
        **options,
    )
    answer_refusals(app)
    app.add_middleware(Tagged)
    return app


def document(app: FastAPI) -> dict[str, Any]:
    """Return the OpenAPI document, including the schema of all errors."""
    described = app.openapi()
    schemas = described.setdefault("components", {}).setdefault("schemas", {})
    schemas.setdefault("Problem", Problem.model_json_schema())
    return described
