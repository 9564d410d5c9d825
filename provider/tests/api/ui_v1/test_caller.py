"""The permissions for reads and changes on every route. A new route without a check fails here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from testkit.ledger import enlist, queued  # isort: skip

from fastapi import FastAPI

if TYPE_CHECKING:
    from .conftest import Users

EXAMPLES = {
    "name": "edge",
    "token_id": "t",
    "queue": "q",
    "job_id": "j",
    "dag_id": "d",
    "kind": "queue",
    "bundle": "b",
    "runtime": "r",
    "incident_id": "i",
    "digest": "0" * 64,
}
BODIES: dict[str, dict[str, Any]] = {
    "/workers/actions": {"action": "pause", "names": ["edge"]},
    "/workers/{name}/intent": {"mode": "pause"},
    "/workers/{name}/queues": {"queues": ["q"]},
    "/workers/{name}/labels": {"labels": {}},
    "/workers/{name}/bundles": {"bundles": ["b"]},
    "/workers/{name}/slots-limit": {"slots": 1},
    "/workers/{name}/suspend": {},
    "/workers/{name}/restart": {},
    "/jobs/{job_id}/stop": {},
    "/enrolment-tokens": {"queues": ["q"]},
    "/queues/{queue}/rules": {"lost_after_s": 60},
    "/queues/{queue}/bundles": {"bundles": ["b"]},
    "/queues/{queue}/runtime": {"runtime": None},
    "/releases/roll": {},
    "/releases/halt": {},
    "/runtimes/{runtime}/roll": {},
    "/runtimes/{runtime}/halt": {},
    "/trees/{digest}/statements": {"envelope": "{}"},
    "/bundles/{bundle}/trees/{digest}": {"scanned_s_ago": 0},
    "/policies/{queue}/mode": {"mode": "audit"},
    "/policies/{queue}/allow": {"connections": ["c"]},
    "/policies/{queue}/deny": {"connections": ["c"]},
}
ANY_USERS = {("GET", "/me")}
"""Routes for every user who is logged in."""
MANAGERS = {
    ("GET", "/enrolment-tokens"),
    ("GET", "/audit"),
    ("GET", "/trees/{digest}/statements"),
    ("GET", "/workers/{name}/log"),
    ("GET", "/workers/{name}/log/download"),
}
"""Reads that require the right to manage workers."""


def routes(app: FastAPI) -> list[tuple[str, str]]:
    found = [(method.upper(), path) for path, methods in app.openapi()["paths"].items() for method in methods]
    assert len(found) > 20
    return found


def called(users: Users, user: str, method: str, path: str) -> Any:
    body, query = BODIES.get(path) if method != "GET" else None, {"lasts_s": 1} if path == "/live" else None
    return users.__getattr__(user)(method, path.format(**EXAMPLES), json=body, params=query)


def test_every_route_refuses_an_unknown_user(app: FastAPI, users: Users) -> None:
    for method, path in [*routes(app), ("GET", "/openapi.json")]:
        answer = called(users, "nobody", method, path)
        assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized"), (method, path)
        assert answer.headers["content-type"] == "application/problem+json"


def test_every_route_refuses_a_user_who_can_not_read(app: FastAPI, users: Users) -> None:
    enlist("edge")
    for method, path in set(routes(app)) - ANY_USERS:
        answer = called(users, "eve", method, path)
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden"), (method, path, answer.text)


def test_a_user_who_can_only_read_changes_nothing(app: FastAPI, users: Users) -> None:
    enlist("edge")
    queued(job_id="j")
    for method, path in routes(app):
        answer = called(users, "vic", method, path)
        if method != "GET" or (method, path) in MANAGERS:
            assert answer.status_code == 403, (method, path, answer.text)
            assert "this requires the right to" in answer.json()["detail"]
        else:
            assert answer.status_code in (200, 404), (method, path, answer.text)


def test_a_manager_may_call_every_route(app: FastAPI, users: Users) -> None:
    for method, path in routes(app):
        answer = called(users, "ann", method, path)
        assert answer.status_code < 300 or answer.status_code in (404, 422), (method, path, answer.text)


@pytest.mark.parametrize(("method", "path"), [("PUT", "/workers/edge/intent"), ("DELETE", "/workers/edge")])
def test_a_manager_of_one_team_can_not_reach_another_teams_workers(users: Users, method: str, path: str) -> None:
    enlist("edge", team="red")
    answer = users.tom(method, path, json={"mode": "pause"} if method == "PUT" else None)
    assert answer.status_code == 404
    assert users.ann.ok("GET", "/workers/edge")["intent"] == "serve"
    assert users.tom.ok("GET", "/workers")["items"] == []


def test_a_manager_of_one_team_manages_it_and_workers_without_a_team(users: Users) -> None:
    enlist("edge", team="blue")
    enlist("other")
    for name in ("edge", "other"):
        assert users.tom.ok("PUT", f"/workers/{name}/intent", json={"mode": "pause"})["intent"] == "pause"
    assert users.tom("POST", "/enrolment-tokens", json={"queues": ["q"], "team": "red"}).status_code == 403
    assert users.tom("POST", "/enrolment-tokens", json={"queues": ["q"], "team": "blue"}).status_code == 201


def test_jobs_of_unreadable_dags_are_hidden(users: Users) -> None:
    toms, anns = queued(dag_id="toms"), queued(dag_id="anns")
    assert [row["id"] for row in users.tom.ok("GET", "/jobs")["items"]] == [toms.job_id]
    assert users.tom.get(f"/jobs/{anns.job_id}").status_code == 404
    assert {row["id"] for row in users.vic.ok("GET", "/jobs")["items"]} == {toms.job_id, anns.job_id}
    assert users.tom.get("/dags/anns/suggestion").status_code == 404


def test_a_users_scope_is_not_queried_at_each_call(users: Users) -> None:
    for _ in range(5):
        users.tom.ok("GET", "/jobs")
    assert users.accounts["tom"].asked == ["dags"]


def test_me_returns_the_user(users: Users) -> None:
    assert users.vic.ok("GET", "/me") == {"name": "vic", "may_manage": False}
    assert users.ann.ok("GET", "/me") == {"name": "ann", "may_manage": True}
