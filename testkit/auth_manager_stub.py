"""A stand-in for Airflow's auth manager: a table of the users that can call the REST API in tests (e2e uses the real one)."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from airflow_remote_provider import compat
from fastapi import FastAPI, HTTPException, Request


@dataclass
class User:
    """An Airflow user and the rights that the auth manager gives them. Their name is their token, as bearer or in the cookie."""

    name: str
    sees: bool = True
    manages: bool = False
    ends: bool = False
    """Whether the user is allowed to end tasks of Dags."""
    teams: frozenset[str] | None = None
    dags: frozenset[str] | None = None
    asked: list[str] = field(default_factory=list)
    """What the auth manager was asked about the user."""

    def get_name(self) -> str:
        return self.name

    def get_id(self) -> str:
        return self.name


def admit(app: FastAPI, monkeypatch: pytest.MonkeyPatch) -> dict[str, User]:
    """Let four users call *app* and return them.

    `ann` manages everything, `vic` only sees, `eve` has no rights, `tom` manages the team `blue` and reads the Dag `toms`.
    """
    users = {
        "ann": User("ann", manages=True, ends=True),
        "vic": User("vic"),
        "eve": User("eve", sees=False),
        "tom": User("tom", manages=True, ends=True, teams=frozenset({"blue"}), dags=frozenset({"toms"})),
    }

    async def user_of(request: Request) -> User:
        name = request.headers.get("authorization", "").removeprefix("Bearer ") or request.cookies.get("_token", "")
        if name not in users:
            raise HTTPException(401 if not name else 403, "Invalid JWT token")  # as Airflow does
        return users[name]

    app.dependency_overrides[compat.user_of_request()] = user_of
    monkeypatch.setattr(compat, "may_see_workers", lambda user: user.sees)
    monkeypatch.setattr(compat, "may_manage_workers", _may_manage)
    monkeypatch.setattr(compat, "may_end_tasks", lambda user, dag_id: user.ends)
    monkeypatch.setattr(compat, "readable_dags", lambda session, user: user.asked.append("dags") or user.dags)
    monkeypatch.setattr(compat, "readable_teams", lambda session, user: user.teams)
    monkeypatch.setattr(compat, "newest_definitions", lambda session, dag_id: {})
    return users


def _may_manage(user: User, team: str | None = None) -> bool:
    return user.manages and (team is None or user.teams is None or team in user.teams)
