"""Creates the REST API. Its routes share a small pool of ledger threads, separate from the workers' pool."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import APIRouter, FastAPI
from pydantic import BaseModel

from airflow_remote_provider import __version__
from airflow_remote_provider.api.pool import LedgerPool
from airflow_remote_provider.api.shutdown import on_shutdown_signal
from airflow_remote_provider.api.ui_v1 import audit, bulk, history, jobs, live, queues, summary, tokens, worker_log, workers
from airflow_remote_provider.api.ui_v1.caller import CallerDep, Scopes
from airflow_remote_provider.api.ui_v1.etags import Tagged
from airflow_remote_provider.api.ui_v1.problems import Problem, answer_with_problems, describe_errors
from airflow_remote_provider.api.ui_v1.pulse import Watch
from airflow_remote_provider.api.unavailable import run_or_explain

THREADS = 2
"""Ledger threads: few, so that users wait for each other and leave the database to the workers."""

router = APIRouter()


class Me(BaseModel):
    name: str
    may_manage: bool
    """Whether the user may manage workers, enrolment tokens, queues and policies that belong to no team."""


@router.get("/me", summary="Show the user's name and permission to manage")
async def me(caller: CallerDep) -> Me:
    return Me(name=caller.name, may_manage=await caller.may_manage())


def create_rest_api() -> FastAPI:
    """Return the app that the plugin mounts under `/remote/ui/v1`. Nothing runs before its lifespan is entered."""

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

    app = FastAPI(
        title="Remote Executor",
        version=__version__,
        description="Remote Workers, their queues and jobs, for users and their programs.",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        lifespan=lifespan,
        responses=describe_errors(401, 403, 404, 422, 503),
    )
    parts = (workers, worker_log, bulk, tokens, queues, history, jobs, audit, summary, live)
    for routes in (router, *(part.router for part in parts)):
        app.include_router(routes)
    answer_with_problems(app)
    app.add_middleware(Tagged)

    @app.get("/openapi.json", include_in_schema=False)
    async def openapi(caller: CallerDep) -> dict[str, Any]:
        return document(app)

    return app


def document(app: FastAPI) -> dict[str, Any]:
    """Return the OpenAPI document, including the schema of all errors."""
    described = app.openapi()
    schemas = described.setdefault("components", {}).setdefault("schemas", {})
    schemas.setdefault("Problem", Problem.model_json_schema())
    return described
