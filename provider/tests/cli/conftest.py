"""Every test of a command runs twice: with the REST API in its process, and with a server on this machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from testkit.auth_manager_stub import admit  # isort: skip
from testkit.servers.uvicorn_app import Serving  # isort: skip

from airflow_remote_provider.api.ui_v1.app import create_rest_api
from airflow_remote_provider.cli.client import PREFIX
from fastapi import FastAPI

HERE = Path(__file__).parent
SUB_PATH = "/airflow"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests with a server run on SQLite only: on other databases the REST API has tests of its own."""
    left_out = [item for item in items if HERE in item.path.parents and _calls_a_server(item) and not _is_on_sqlite(item)]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


def _calls_a_server(item: pytest.Item) -> bool:
    assert isinstance(item, pytest.Function)
    return "server" in item.fixturenames or (hasattr(item, "callspec") and item.callspec.params.get("run") == "server")


def _is_on_sqlite(item: pytest.Item) -> bool:
    return isinstance(item, pytest.Function) and item.callspec.params.get("database_url") == "sqlite"


@pytest.fixture(scope="session")
def served(_engine: object) -> Iterator[tuple[FastAPI, str]]:
    """The REST API, and the URL of the Airflow that it seems to be part of.

    It ends with the engine, because its threads keep their connections. pytest-xdist can make several SQLite engines in a
    process.
    """
    app = create_rest_api()
    with Serving(app, SUB_PATH + PREFIX) as serving:
        yield app, serving.url + SUB_PATH


@pytest.fixture
def server(served: tuple[FastAPI, str], database: object, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of an Airflow that has our API. Each user's token is their name; ann may manage, vic may see, eve may nothing."""
    app, url = served
    admit(app, monkeypatch)
    return url


@pytest.fixture(params=["in_process", "server"])
def run(request: pytest.FixtureRequest, run: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Run `airflow remote …` in either way, with a server as ann; return what it printed to stdout."""
    monkeypatch.delenv("AIRFLOW_REMOTE_SERVER", raising=False)
    if request.param == "server":
        monkeypatch.setenv("AIRFLOW_REMOTE_SERVER", request.getfixturevalue("server"))
        monkeypatch.setenv("AIRFLOW_REMOTE_TOKEN", "ann")
    return run
