"""Puts people's API together. Its routes share a small pool of ledger threads, apart from the workers'."""

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
from airflow_remote_provider.api.ui_v1.problems import Problem, answer_with_problems, documented
from airflow_remote_provider.api.ui_v1.pulse import Watch
from airflow_remote_provider.api.unavailable import running_or_reason

THREADS = 2
"""Of the pool: people wait for each other rather than take the database from the workers."""

router = APIRouter()


class Me(BaseModel):
    name: str
    may_manage: bool
    """Workers, enrolment tokens, queues and policies; those of no team."""


@router.get("/me", summary="Say who I am and what I may")
async def me(caller: CallerDep) -> Me:
    return Me(name=caller.name, may_manage=await caller.may_manage())


def create_people_api() -> FastAPI:
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
        async with running_or_reason(app, "API of users and programs", running(app)):
            yield

    app = FastAPI(
        title="Remote Executor",
        version=__version__,
        description="Remote Workers, their queues and jobs, for people and their programs.",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        lifespan=lifespan,
        responses=documented(401, 403, 404, 422, 503),
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
    """Return the OpenAPI document, with the schema that all errors share."""
    described = app.openapi()
    schemas = described.setdefault("components", {}).setdefault("schemas", {})
    schemas.setdefault("Problem", Problem.model_json_schema())
    return described
