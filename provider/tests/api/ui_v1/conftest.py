"""People's API over a real ledger; Airflow's auth manager is a table of users here (e2e asks the real one)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from airflow_remote_provider import compat
from airflow_remote_provider.api.ui_v1.app import create_people_api
from fastapi import FastAPI, HTTPException, Request
from starlette.testclient import TestClient


@dataclass
class User:
    """One of Airflow's users, and what its auth manager says of him."""

    name: str
    sees: bool = True
    manages: bool = False
    ends: bool = False
    """Tasks of Dags."""
    teams: frozenset[str] | None = None
    dags: frozenset[str] | None = None
    asked: list[str] = field(default_factory=list)
    """What the auth manager was asked about him."""

    def get_name(self) -> str:
        return self.name

    def get_id(self) -> str:
        return self.name


class People:
    """The API, and who may call it: `people.ann.get("/workers")`."""

    def __init__(self, client: TestClient) -> None:
        self.client = client
        self.users = {
            "ann": User("ann", manages=True, ends=True),
            "vic": User("vic"),
            "eve": User("eve", sees=False),
            "tom": User("tom", manages=True, ends=True, teams=frozenset({"blue"}), dags=frozenset({"his"})),
        }
        """ann may manage, vic may see, eve may nothing, tom manages the team blue and reads the Dag `his`."""

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
        people = People(client)

        async def user_of(request: Request) -> User:
            name = request.headers.get("authorization", "").removeprefix("Bearer ")
            if name not in people.users:
                raise HTTPException(401 if not name else 403, "Invalid JWT token")  # as Airflow does
            return people.users[name]

        app.dependency_overrides[compat.user_of_request()] = user_of
        monkeypatch.setattr(compat, "may_see_workers", lambda user: user.sees)
        monkeypatch.setattr(compat, "may_manage_workers", _may_manage)
        monkeypatch.setattr(compat, "may_end_tasks", lambda user, dag_id: user.ends)
        monkeypatch.setattr(compat, "readable_dags", lambda session, user: user.asked.append("dags") or user.dags)
        monkeypatch.setattr(compat, "readable_teams", lambda session, user: user.teams)
        monkeypatch.setattr(compat, "newest_definitions", lambda session, dag_id: {})
        yield people


def _may_manage(user: User, team: str | None = None) -> bool:
    return user.manages and (team is None or user.teams is None or team in user.teams)
