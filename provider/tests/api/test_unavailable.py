"""A part that can't be made or started does not affect Airflow's API server; its routes answer with the reason."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest

from testkit.ledger import Job  # isort: skip  # noqa: F401  (points Airflow elsewhere)

from airflow_remote_provider import plugin
from airflow_remote_provider.api.unavailable import create_or_explain, run_or_explain
from airflow_remote_provider.settings import BadSetting
from fastapi import FastAPI

BAD = BadSetting("[remote] poll_seconds = 'x' is not a number; set one from 1 to 300")


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
def test_an_app_that_can_t_be_made_answers_every_route_with_the_reason(method: str) -> None:
    answer = _ask(create_or_explain("API", lambda: _raise(BAD)), "/any/route", method)
    assert (answer.status_code, answer.headers["content-type"]) == (503, "application/problem+json")
    assert str(BAD) in answer.json()["detail"] and "restart this process" in answer.json()["detail"]


def test_an_app_that_can_t_be_started_answers_with_the_reason_and_ends_cleanly() -> None:
    @asynccontextmanager
    async def running() -> AsyncIterator[None]:
        raise BAD
        yield

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with run_or_explain(app, "API", running(), headers={"x-problem": "busy"}):
            yield

    answer = _ask(FastAPI(lifespan=lifespan))
    assert (answer.status_code, answer.headers["x-problem"]) == (503, "busy")


def test_a_bug_is_only_described_in_the_log() -> None:
    answer = _ask(create_or_explain("API", lambda: _raise(KeyError("a secret"))))
    assert answer.status_code == 503 and "secret" not in answer.text and "its log says why" in answer.json()["detail"]


def test_a_failure_at_the_end_does_not_reach_airflow() -> None:
    @asynccontextmanager
    async def running() -> AsyncIterator[None]:
        yield
        raise KeyError("at its end")

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with run_or_explain(app, "API", running()):
            yield

    assert _ask(FastAPI(lifespan=lifespan)).status_code == 404


def test_a_part_that_can_t_be_made_does_not_affect_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugin, "_worker_api", lambda: _raise(ImportError("no module named x")))
    monkeypatch.setattr(plugin, "_rest_api", FastAPI)
    monkeypatch.setattr(plugin, "_static_app", FastAPI)
    apps = {app["url_prefix"]: app["app"] for app in plugin.RemotePlugin().fastapi_apps}
    assert set(apps) == {"/remote/static", "/remote/v1", "/remote/ui/v1"}
    assert _ask(apps["/remote/v1"]).status_code == 503
