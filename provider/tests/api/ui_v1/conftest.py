"""The REST API with a real ledger; Airflow's auth manager is a table of users here (e2e tests use the real one)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from testkit.auth_manager_stub import User, admit  # isort: skip

from airflow_remote_provider.api.ui_v1.app import create_rest_api
from fastapi import FastAPI
from starlette.testclient import TestClient


class Users:
    """The API with a client for each user: `users.ann.get("/workers")`."""

    def __init__(self, client: TestClient, accounts: dict[str, User]) -> None:
        self.client = client
        self.accounts = accounts

    def __getattr__(self, name: str) -> UserClient:
        return UserClient(self.client, name)


@dataclass(frozen=True)
class UserClient:
    """The API client of one user."""

    client: TestClient
    name: str

    def __call__(self, method: str, path: str, **more: Any) -> Any:
        headers = {"authorization": f"Bearer {self.name}", **more.pop("headers", {})}
        return self.client.request(method, path, headers=headers, **more)

    def get(self, path: str, **more: Any) -> Any:
        return self("GET", path, **more)

    def ok(self, method: str, path: str, status: int = 200, **more: Any) -> Any:
        """Call and require success; return the JSON of the answer, if it has a body."""
        answer = self(method, path, **more)
        assert answer.status_code == status, answer.text
        return answer.json() if answer.content else None


@pytest.fixture(scope="session")
def created() -> FastAPI:
    """One app for all tests: to create it takes longer than most of them. Its lifespan is a test's, as are its callers."""
    return create_rest_api()


@pytest.fixture
def app(created: FastAPI) -> Iterator[FastAPI]:
    yield created
    created.dependency_overrides.clear()
    created.openapi_schema = None  # FastAPI keeps the document


@pytest.fixture
def users(app: FastAPI, database: object, monkeypatch: pytest.MonkeyPatch) -> Iterator[Users]:
    with TestClient(app, raise_server_exceptions=False) as client:
        yield Users(client, admit(app, monkeypatch))
