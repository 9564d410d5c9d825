"""People's API over a real ledger; Airflow's auth manager is a table of users here (e2e asks the real one)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from testkit.auth_manager_stub import User, admit  # isort: skip

from airflow_remote_provider.api.ui_v1.app import create_people_api
from fastapi import FastAPI
from starlette.testclient import TestClient


class People:
    """The API, and who may call it: `people.ann.get("/workers")`."""

    def __init__(self, client: TestClient, users: dict[str, User]) -> None:
        self.client = client
        self.users = users

    def __getattr__(self, name: str) -> Voice:
        return Voice(self.client, name)


@dataclass(frozen=True)
class Voice:
    """One user's calls."""

    client: TestClient
    name: str

    def __call__(self, method: str, path: str, **more: Any) -> Any:
        headers = {"authorization": f"Bearer {self.name}", **more.pop("headers", {})}
        return self.client.request(method, path, headers=headers, **more)

    def get(self, path: str, **more: Any) -> Any:
        return self("GET", path, **more)

    def ok(self, method: str, path: str, status: int = 200, **more: Any) -> Any:
        """Call, and insist on success; return the JSON of the answer, if there is some."""
        answer = self(method, path, **more)
        assert answer.status_code == status, answer.text
        return answer.json() if answer.content else None


@pytest.fixture
def app() -> FastAPI:
    return create_people_api()


@pytest.fixture
def people(app: FastAPI, database: object, monkeypatch: pytest.MonkeyPatch) -> Iterator[People]:
    with TestClient(app, raise_server_exceptions=False) as client:
        yield People(client, admit(app, monkeypatch))
