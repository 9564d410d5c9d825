"""A part of ours that can't be made or started leaves Airflow's API server alone; its routes say why."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest

from testkit.ledger import Job  # isort: skip  # noqa: F401  (points Airflow elsewhere)

from airflow_remote_provider import plugin
from airflow_remote_provider.api.unavailable import app_or_reason, running_or_reason
from airflow_remote_provider.settings import BadSetting
from fastapi import FastAPI

BAD = BadSetting("[remote] poll_seconds = 'x' is no number; set one from 1 to 300")


def _ask(app: FastAPI, path: str = "/workers", method: str = "GET") -> httpx.Response:
    async def asked() -> httpx.Response:
        async with app.router.lifespan_context(app):
            transport = httpx.ASGITransport(app=app)
            async with httpx.AsyncClient(transport=transport, base_url="http://central") as client:
                return await client.request(method, path)

    return asyncio.run(asked())


def _raise(error: Exception) -> FastAPI:
    raise error


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_an_app_that_can_t_be_made_says_why_on_every_route(method: str) -> None:
    answer = _ask(app_or_reason("API", lambda: _raise(BAD)), "/any/route", method)
    assert (answer.status_code, answer.headers["content-type"]) == (503, "application/problem+json")
    assert str(BAD) in answer.json()["detail"] and "restart this process" in answer.json()["detail"]


def test_an_app_that_can_t_be_started_says_why_and_ends_in_peace() -> None:
    @asynccontextmanager
    async def running() -> AsyncIterator[None]:
        raise BAD
        yield

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with running_or_reason(app, "API", running(), {"x-problem": "busy"}):
            yield

    answer = _ask(FastAPI(lifespan=lifespan))
    assert (answer.status_code, answer.headers["x-problem"]) == (503, "busy")


def test_a_mistake_of_ours_is_told_to_the_log_only() -> None:
    answer = _ask(app_or_reason("API", lambda: _raise(KeyError("a secret"))))
    assert answer.status_code == 503 and "secret" not in answer.text and "its log says why" in answer.json()["detail"]


def test_an_end_that_fails_is_kept_from_airflow() -> None:
    @asynccontextmanager
    async def running() -> AsyncIterator[None]:
        yield
        raise KeyError("at its end")

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with running_or_reason(app, "API", running()):
            yield

    assert _ask(FastAPI(lifespan=lifespan)).status_code == 404


def test_one_part_that_can_t_be_made_leaves_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugin, "_worker_api", lambda: _raise(ImportError("no module named x")))
    monkeypatch.setattr(plugin, "_people_api", FastAPI)
    monkeypatch.setattr(plugin, "_static_app", FastAPI)
    apps = {app["url_prefix"]: app["app"] for app in plugin.RemotePlugin().fastapi_apps}
    assert set(apps) == {"/remote/static", "/remote/v1", "/remote/ui/v1"}
    assert _ask(apps["/remote/v1"]).status_code == 503
