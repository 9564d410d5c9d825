"""Who may read, who may act, on every route there is: a new route that forgets to ask fails here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from testkit.ledger import enlist, queued  # isort: skip

from fastapi import FastAPI

if TYPE_CHECKING:
    from .conftest import People

EXAMPLES = {"name": "edge", "token_id": "t", "queue": "q", "job_id": "j", "dag_id": "d", "kind": "queue"}
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
    "/policies/{queue}/mode": {"mode": "audit"},
    "/policies/{queue}/allow": {"connections": ["c"]},
    "/policies/{queue}/deny": {"connections": ["c"]},
}
ANYBODYS = {("GET", "/me")}
"""Of everybody who is somebody."""
MANAGERS = {
    ("GET", "/enrolment-tokens"),
    ("GET", "/audit"),
    ("GET", "/workers/{name}/log"),
    ("GET", "/workers/{name}/log/download"),
}
"""Reads that take the right to manage."""


def routes(app: FastAPI) -> list[tuple[str, str]]:
    found = [(method.upper(), path) for path, methods in app.openapi()["paths"].items() for method in methods]
    assert len(found) > 20
    return found


def called(people: People, user: str, method: str, path: str) -> Any:
    body, query = BODIES.get(path) if method != "GET" else None, {"lasts_s": 1} if path == "/live" else None
    return people.__getattr__(user)(method, path.format(**EXAMPLES), json=body, params=query)


def test_nobody_is_told_anything(app: FastAPI, people: People) -> None:
    for method, path in [*routes(app), ("GET", "/openapi.json")]:
        answer = called(people, "nobody", method, path)
        assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized"), (method, path)
        assert answer.headers["content-type"] == "application/problem+json"


def test_who_may_not_see_workers_sees_nothing_and_does_nothing(app: FastAPI, people: People) -> None:
    enlist("edge")
    for method, path in set(routes(app)) - ANYBODYS:
        answer = called(people, "eve", method, path)
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden"), (method, path, answer.text)


def test_who_may_only_see_changes_nothing(app: FastAPI, people: People) -> None:
    enlist("edge")
    queued(job_id="j")
    for method, path in routes(app):
        answer = called(people, "vic", method, path)
        if method != "GET" or (method, path) in MANAGERS:
            assert answer.status_code == 403, (method, path, answer.text)
            assert "that takes the right to" in answer.json()["detail"]
        else:
            assert answer.status_code in (200, 404), (method, path, answer.text)


def test_who_may_manage_does_everything(app: FastAPI, people: People) -> None:
    for method, path in routes(app):
        answer = called(people, "ann", method, path)
        assert answer.status_code < 300 or answer.status_code in (404, 422), (method, path, answer.text)


@pytest.mark.parametrize(("method", "path"), [("PUT", "/workers/edge/intent"), ("DELETE", "/workers/edge")])
def test_a_manager_of_one_team_knows_nothing_of_anothers_workers(people: People, method: str, path: str) -> None:
    enlist("edge", team="red")
    answer = people.tom(method, path, json={"mode": "pause"} if method == "PUT" else None)
    assert answer.status_code == 404
    assert people.ann.ok("GET", "/workers/edge")["intent"] == "serve"
    assert people.tom.ok("GET", "/workers")["items"] == []


def test_a_manager_of_one_team_manages_it_and_what_is_nobodys(people: People) -> None:
    enlist("edge", team="blue")
    enlist("other")
    for name in ("edge", "other"):
        assert people.tom.ok("PUT", f"/workers/{name}/intent", json={"mode": "pause"})["intent"] == "pause"
    assert people.tom("POST", "/enrolment-tokens", json={"queues": ["q"], "team": "red"}).status_code == 403
    assert people.tom("POST", "/enrolment-tokens", json={"queues": ["q"], "team": "blue"}).status_code == 201


def test_jobs_of_dags_that_he_may_not_read_are_not_there(people: People) -> None:
    his, hers = queued(dag_id="his"), queued(dag_id="hers")
    assert [row["id"] for row in people.tom.ok("GET", "/jobs")["items"]] == [his.job_id]
    assert people.tom.get(f"/jobs/{hers.job_id}").status_code == 404
    assert {row["id"] for row in people.vic.ok("GET", "/jobs")["items"]} == {his.job_id, hers.job_id}
    assert people.tom.get("/dags/hers/suggestion").status_code == 404


def test_what_somebody_may_see_is_not_asked_again_at_each_call(people: People) -> None:
    for _ in range(5):
        people.tom.ok("GET", "/jobs")
    assert people.users["tom"].asked == ["dags"]


def test_he_is_told_who_he_is(people: People) -> None:
    assert people.vic.ok("GET", "/me") == {"name": "vic", "may_manage": False}
    assert people.ann.ok("GET", "/me") == {"name": "ann", "may_manage": True}
