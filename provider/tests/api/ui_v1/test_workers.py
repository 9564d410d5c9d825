"""The fleet over REST: filters, pages, and all changes, each audited with the user's name."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

import pytest
from airflow_remote_provider import compat
from airflow_remote_provider.ledger import jobs, sessions
from airflow_remote_provider.models import Worker
from sqlalchemy import Engine, select

from testkit.ledger import ago, audit_entries, change_job, record_statements, enlist, set_last_seen, offered, running  # isort: skip

if TYPE_CHECKING:
    from .conftest import Users


def names(users: Users, query: str = "") -> list[str]:
    return [row["name"] for row in users.vic.ok("GET", f"/workers{query}")["items"]]


def test_a_worker_is_shown_with_presence_intent_and_activity(users: Users) -> None:
    offered(enlist("edge", ["a", "b"], slots=8), "a", slots=3)
    row = users.vic.ok("GET", "/workers/edge")
    assert (row["presence"], row["intent"], row["used_slots"], row["slots"]) == ("online", "serve", 3, 8)
    assert (row["queues"], row["facts"]["hostname"]) == (["a", "b"], "h")
    assert row["last_seen_at"].endswith(("Z", "+00:00"))
    assert "hash" not in str(row)


def test_a_worker_has_its_oldest_running_jobs_and_their_number(users: Users) -> None:
    worker, other = enlist("edge", slots=8), enlist("ship", ["s"])
    made = [running(worker, dag_id="bread", run_id=f"r{number}", task_id="bake", map_index=number).job_id for number in range(5)]
    for number, job_id in enumerate(made):
        change_job(job_id, accepted_at=ago(minutes=number))
    offered(worker)
    running(other, "s")
    row = next(row for row in users.vic.ok("GET", "/workers")["items"] if row["name"] == "edge")
    assert [job["id"] for job in row["running"]] == [made[4], made[3], made[2]]
    assert row["running_count"] == 5
    oldest = {"id": made[4], "kind": "task", "dag_id": "bread", "run_id": "r4", "task_id": "bake", "map_index": 4}
    assert row["running"][0] == oldest
    assert users.vic.ok("GET", "/workers/edge")["running"] == row["running"]


def test_running_jobs_of_unreadable_dags_are_hidden(users: Users) -> None:
    worker = enlist("edge", slots=8)
    running(worker, dag_id="anns")
    toms = running(worker, dag_id="toms").job_id
    row = users.tom.ok("GET", "/workers/edge")
    assert ([job["id"] for job in row["running"]], row["running_count"], row["used_slots"]) == ([toms], 1, 2)


def test_an_unknown_worker_is_named(users: Users) -> None:
    answer = users.vic.get("/workers/nobody")
    assert (answer.status_code, answer.json()["code"]) == (404, "not-found")
    assert "no worker named 'nobody'" in answer.json()["detail"]


def test_the_list_is_filtered(users: Users) -> None:
    for name, queues in {"Edge-1": ["a"], "edge-2": ["a", "b"], "ship": ['q"x', "a b"]}.items():
        enlist(name, queues)
    set_last_seen(worker_row_id("ship"), ago(hours=1))
    users.ann.ok("PUT", "/workers/edge-2/labels", json={"labels": {"site": "kiel", "gpu": "yes"}})
    users.ann.ok("PUT", "/workers/edge-2/intent", json={"mode": "pause"})
    users.ann.ok("POST", "/workers/Edge-1/suspend", json={"reason": "odd"})
    assert names(users) == ["Edge-1", "edge-2", "ship"]
    assert names(users, "?text=EDGE") == ["Edge-1", "edge-2"]
    assert names(users, "?text=%25") == []
    assert names(users, "?queue=b") == ["edge-2"]
    assert names(users, "?queue=a") == ["Edge-1", "edge-2"]
    assert names(users, "?queue=x") == []
    assert names(users, "?label=site%3Dkiel") == ["edge-2"]
    assert names(users, "?label=gpu%3Dyes") == ["edge-2"]
    assert names(users, "?label=gpu%3Dye") == []
    assert names(users, "?presence=silent&presence=gone") == ["ship"]
    assert names(users, "?intent=pause") == ["edge-2"]
    assert names(users, "?flagged=true") == ["Edge-1"]
    assert names(users, "?flagged=true&intent=pause") == []


def worker_row_id(name: str) -> str:
    with compat.transaction() as session:
        return str(session.scalar(select(Worker.id).where(Worker.name == name)))


def test_the_fleet_is_counted_with_the_same_filter(users: Users) -> None:
    offered(enlist("edge-1", slots=8), slots=3)
    enlist("edge-2", slots=2)
    enlist("ship", slots=5)
    users.ann.ok("PUT", "/workers/edge-2/slots-limit", json={"slots": 1})
    set_last_seen(worker_row_id("ship"), ago(hours=1))
    count = users.vic.ok("GET", "/fleet")
    presence = {"workers": 3, "online": 2, "silent": 1, "offline": 0, "never_connected": 0, "gone": 0}
    assert count == {**presence, "flagged": 0, "unfit": 0, "slots": 9, "used_slots": 3}
    assert users.vic.ok("GET", "/fleet?text=ship")["workers"] == 1


@pytest.mark.parametrize("order", ["name", "-name", "slots", "-used_slots", "last_seen_at", "-created_at", "presence", "intent"])
def test_pages_show_each_worker_once_in_every_order(users: Users, order: str) -> None:
    for number in range(7):
        enlist(f"w{number}", slots=number // 3)
    whole = users.vic.ok("GET", f"/workers?order={order}")
    assert whole["next"] is None
    seen: list[str] = []
    after = ""
    while after is not None:
        page = users.vic.ok("GET", f"/workers?order={order}&limit=2&after={after}")
        seen += [row["name"] for row in page["items"]]
        after = page["next"]
    assert seen == [row["name"] for row in whole["items"]]
    assert sorted(seen) == [f"w{number}" for number in range(7)]


@pytest.mark.parametrize("query", ["order=secret", "after=rubbish", "after=W10", "limit=0", "limit=1001", "order=-", "label=x"])
def test_an_invalid_page_is_refused_with_a_reason(users: Users, query: str) -> None:
    enlist()
    answer = users.vic.get(f"/workers?{query}")
    assert answer.status_code == 422 and answer.json()["detail"]


@pytest.mark.parametrize(
    ("order", "value", "unique"),
    [
        ("name", 1, "id"),
        ("name", None, "id"),
        ("name", "a\0", "id"),
        ("name", "a", "i\0d"),
        ("name", "a", 1),
        ("slots", "a", "id"),
        ("slots", 2**70, "id"),
        ("created_at", "a", "id"),
        ("created_at", {"time": "2026-01-01"}, "id"),
        ("created_at", {"time": "soon"}, "id"),
        ("created_at", {"when": 1}, "id"),
    ],
)
def test_a_forged_cursor_is_refused(users: Users, order: str, value: Any, unique: Any) -> None:
    text = base64.urlsafe_b64encode(json.dumps([order, value, unique]).encode()).decode()
    answer = users.vic.get(f"/workers?order={order}&after={text}")
    assert answer.status_code == 422 and "cursor" in answer.json()["detail"]


@pytest.mark.parametrize("path", ["/workers?text=%00", "/workers/%00", "/jobs?dag_id=a%00b"])
def test_a_zero_byte_in_a_name_is_refused(users: Users, path: str) -> None:
    enlist()
    assert users.vic.get(path).status_code == 422


def test_a_cursor_of_another_order_is_refused(users: Users) -> None:
    enlist("a")
    enlist("b")
    cursor = users.vic.ok("GET", "/workers?limit=1")["next"]
    assert users.vic.get(f"/workers?limit=1&order=-name&after={cursor}").status_code == 422


CHANGES: list[tuple[str, str, Any, dict[str, Any]]] = [
    (
        "PUT",
        "intent",
        {"mode": "pause", "reason": "patching"},
        {"intent": "pause", "intent_reason": "patching", "intent_by": "ann"},
    ),
    ("PUT", "intent", {"mode": "drain"}, {"intent": "drain", "intent_until": None, "intent_heard": False}),
    ("PUT", "queues", {"queues": ["x", " y ", "x"]}, {"queues": ["x", "y"]}),
    ("PUT", "labels", {"labels": {"site": "kiel"}}, {"labels": {"site": "kiel"}}),
    ("PUT", "bundles", {"bundles": ["plant-*", "x", "x"]}, {"bundles": ["plant-*", "x"]}),
    ("PUT", "bundles", {"bundles": None}, {"bundles": None}),
    ("PUT", "bundles", {"bundles": ["x", "*"]}, {"bundles": None}),
    ("PUT", "slots-limit", {"slots": 2}, {"slots_limit": 2}),
    ("PUT", "slots-limit", {"slots": None}, {"slots_limit": None}),
    ("POST", "rotate", None, {}),
    ("POST", "rebind", None, {"certificate": None}),
    ("POST", "suspend", {"reason": "odd"}, {}),
    ("POST", "revoke", None, {"presence": "gone"}),
]


@pytest.mark.parametrize(("method", "path", "body", "becomes"), CHANGES)
def test_a_change_is_stored_shown_and_audited(users: Users, method: str, path: str, body: Any, becomes: dict[str, Any]) -> None:
    enlist("edge")
    row = users.ann.ok(method, f"/workers/edge/{path}", json=body)
    assert {key: row[key] for key in becomes} == becomes
    [entry] = audit_entries("action", worker="edge")
    assert entry.actor == "ann"


def test_a_pause_may_have_a_duration(users: Users) -> None:
    enlist("edge")
    assert users.ann.ok("PUT", "/workers/edge/intent", json={"mode": "pause", "lasts_s": 3600})["intent_until"]
    answer = users.ann("PUT", "/workers/edge/intent", json={"mode": "serve", "lasts_s": 3600})
    assert answer.status_code == 422 and "only a pause" in answer.json()["detail"]


def test_a_suspension_is_lifted(users: Users) -> None:
    enlist("edge")
    assert users.ann.ok("POST", "/workers/edge/suspend", json={})["suspended_at"]
    assert users.ann.ok("POST", "/workers/edge/unsuspend")["suspended_at"] is None


def test_an_alarm_is_cleared(users: Users) -> None:
    worker = enlist("edge")
    with compat.transaction() as session:
        sessions.flag_clone(session, worker.id)
    assert users.vic.ok("GET", "/workers?flagged=true")["items"]
    assert users.ann.ok("POST", "/workers/edge/acknowledge")["alarm"] == ""
    assert users.ann("POST", "/workers/edge/acknowledge").status_code == 422


def test_a_worker_is_removed_unless_it_has_jobs(users: Users) -> None:
    worker = enlist("edge")
    lease = offered(worker)
    refused = users.ann("DELETE", "/workers/edge")
    assert refused.status_code == 422 and "drain it first" in refused.json()["detail"]
    with compat.transaction() as session:
        jobs.revoke(session, lease.job_id)
    users.ann.ok("DELETE", "/workers/edge", 204)
    assert names(users) == []


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("intent", {"mode": "dance"}),
        ("intent", {"mode": "pause", "resaon": "x"}),
        ("intent", {"mode": "pause", "lasts_s": 0}),
        ("intent", {"mode": "pause", "lasts_s": 1e12}),
        ("intent", {"mode": "pause", "reason": "x" * 1001}),
        ("queues", {"queues": ["a,b"]}),
        ("queues", {"queues": [f"q{n}" for n in range(101)]}),
        ("labels", {"labels": {"": "x"}}),
        ("labels", {"labels": {"a=b": "x"}}),
        ("bundles", {"bundles": ["a,b"]}),
        ("slots-limit", {"slots": -1}),
        ("slots-limit", {}),
    ],
)
def test_an_invalid_change_is_refused_and_named(users: Users, path: str, body: Any) -> None:
    enlist("edge")
    before = users.ann.ok("GET", "/workers/edge")
    answer = users.ann("PUT", f"/workers/edge/{path}", json=body)
    assert answer.status_code == 422 and answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["detail"].startswith("body.")
    assert users.ann.ok("GET", "/workers/edge") == before


@pytest.mark.parametrize("what", ["queues", "bundles"])
def test_a_change_that_leaves_a_worker_without_jobs_is_refused_with_the_alternative(users: Users, what: str) -> None:
    enlist("edge")
    before = users.ann.ok("GET", "/workers/edge")
    answer = users.ann("PUT", f"/workers/edge/{what}", json={what: []})
    assert answer.status_code == 422 and "pause it" in answer.json()["detail"]
    assert users.ann.ok("GET", "/workers/edge") == before


def test_the_list_costs_the_same_statements_for_any_fleet_size(users: Users, database: Engine) -> None:
    users.vic.ok("GET", "/jobs")  # the user's scope is cached from here on
    for names in (["a"], [f"b{number}" for number in range(30)]):
        for name in names:
            running(enlist(name, [name]), name)
        with record_statements(database) as statements:
            users.vic.ok("GET", "/workers")
            users.vic.ok("GET", "/jobs")
        assert len(statements) <= 5, statements
