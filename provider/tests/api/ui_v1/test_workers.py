"""The fleet over REST: filters, pages, and every wish, audited under the name of who has it."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

import pytest
from airflow_remote_provider import compat
from airflow_remote_provider.ledger import jobs, sessions
from airflow_remote_provider.models import Worker
from sqlalchemy import Engine, select

from testkit.ledger import ago, audited, change_job, counted, enlist, last_seen, offered, running  # isort: skip

if TYPE_CHECKING:
    from .conftest import People


def names(people: People, query: str = "") -> list[str]:
    return [row["name"] for row in people.vic.ok("GET", f"/workers{query}")["items"]]


def test_a_worker_is_shown_with_presence_intent_and_activity_apart(people: People) -> None:
    offered(enlist("edge", ["a", "b"], slots=8), "a", slots=3)
    row = people.vic.ok("GET", "/workers/edge")
    assert (row["presence"], row["intent"], row["used_slots"], row["slots"]) == ("online", "serve", 3, 8)
    assert (row["queues"], row["facts"]["hostname"]) == (["a", "b"], "h")
    assert row["last_seen_at"].endswith(("Z", "+00:00"))
    assert "hash" not in str(row)


def test_it_tells_its_oldest_running_jobs_and_how_many_there_are(people: People) -> None:
    worker, other = enlist("edge", slots=8), enlist("ship", ["s"])
    made = [running(worker, dag_id="bread", run_id=f"r{number}", task_id="bake", map_index=number).job_id for number in range(5)]
    for number, job_id in enumerate(made):
        change_job(job_id, accepted_at=ago(minutes=number))
    offered(worker)
    running(other, "s")
    row = next(row for row in people.vic.ok("GET", "/workers")["items"] if row["name"] == "edge")
    assert [job["id"] for job in row["running"]] == [made[4], made[3], made[2]]
    assert row["running_count"] == 5
    told = {"id": made[4], "kind": "task", "dag_id": "bread", "run_id": "r4", "task_id": "bake", "map_index": 4}
    assert row["running"][0] == told
    assert people.vic.ok("GET", "/workers/edge")["running"] == row["running"]


def test_jobs_of_dags_that_a_person_may_not_read_are_not_told(people: People) -> None:
    worker = enlist("edge", slots=8)
    running(worker, dag_id="hers")
    his = running(worker, dag_id="his").job_id
    row = people.tom.ok("GET", "/workers/edge")
    assert ([job["id"] for job in row["running"]], row["running_count"], row["used_slots"]) == ([his], 1, 2)


def test_one_that_is_not_there_is_named(people: People) -> None:
    answer = people.vic.get("/workers/nobody")
    assert (answer.status_code, answer.json()["code"]) == (404, "not-found")
    assert "no worker named 'nobody'" in answer.json()["detail"]


def test_the_list_is_filtered(people: People) -> None:
    for name, queues in {"Edge-1": ["a"], "edge-2": ["a", "b"], "ship": ['q"x', "a b"]}.items():
        enlist(name, queues)
    last_seen(worker_row_id("ship"), ago(hours=1))
    people.ann.ok("PUT", "/workers/edge-2/labels", json={"labels": {"site": "kiel", "gpu": "yes"}})
    people.ann.ok("PUT", "/workers/edge-2/intent", json={"mode": "pause"})
    people.ann.ok("POST", "/workers/Edge-1/suspend", json={"reason": "odd"})
    assert names(people) == ["Edge-1", "edge-2", "ship"]
    assert names(people, "?text=EDGE") == ["Edge-1", "edge-2"]
    assert names(people, "?text=%25") == []
    assert names(people, "?queue=b") == ["edge-2"]
    assert names(people, "?queue=a") == ["Edge-1", "edge-2"]
    assert names(people, "?queue=x") == []
    assert names(people, "?label=site%3Dkiel") == ["edge-2"]
    assert names(people, "?label=gpu%3Dyes") == ["edge-2"]
    assert names(people, "?label=gpu%3Dye") == []
    assert names(people, "?presence=silent&presence=gone") == ["ship"]
    assert names(people, "?intent=pause") == ["edge-2"]
    assert names(people, "?flagged=true") == ["Edge-1"]
    assert names(people, "?flagged=true&intent=pause") == []


def worker_row_id(name: str) -> str:
    with compat.transaction() as session:
        return str(session.scalar(select(Worker.id).where(Worker.name == name)))


def test_the_fleet_is_counted_by_the_same_filter(people: People) -> None:
    offered(enlist("edge-1", slots=8), slots=3)
    enlist("edge-2", slots=2)
    enlist("ship", slots=5)
    people.ann.ok("PUT", "/workers/edge-2/slots-limit", json={"slots": 1})
    last_seen(worker_row_id("ship"), ago(hours=1))
    count = people.vic.ok("GET", "/fleet")
    presence = {"workers": 3, "online": 2, "silent": 1, "offline": 0, "never_connected": 0, "gone": 0}
    assert count == {**presence, "flagged": 0, "unfit": 0, "slots": 9, "used_slots": 3}
    assert people.vic.ok("GET", "/fleet?text=ship")["workers"] == 1


@pytest.mark.parametrize("order", ["name", "-name", "slots", "-used_slots", "last_seen_at", "-created_at", "presence", "intent"])
def test_pages_show_each_worker_once_in_every_order(people: People, order: str) -> None:
    for number in range(7):
        enlist(f"w{number}", slots=number // 3)
    whole = people.vic.ok("GET", f"/workers?order={order}")
    assert whole["next"] is None
    seen: list[str] = []
    after = ""
    while after is not None:
        page = people.vic.ok("GET", f"/workers?order={order}&limit=2&after={after}")
        seen += [row["name"] for row in page["items"]]
        after = page["next"]
    assert seen == [row["name"] for row in whole["items"]]
    assert sorted(seen) == [f"w{number}" for number in range(7)]


@pytest.mark.parametrize("query", ["order=secret", "after=rubbish", "after=W10", "limit=0", "limit=1001", "order=-", "label=x"])
def test_what_is_no_page_is_refused_in_words(people: People, query: str) -> None:
    enlist()
    answer = people.vic.get(f"/workers?{query}")
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
def test_a_cursor_that_somebody_made_up_is_refused(people: People, order: str, value: Any, unique: Any) -> None:
    text = base64.urlsafe_b64encode(json.dumps([order, value, unique]).encode()).decode()
    answer = people.vic.get(f"/workers?order={order}&after={text}")
    assert answer.status_code == 422 and "cursor" in answer.json()["detail"]


@pytest.mark.parametrize("path", ["/workers?text=%00", "/workers/%00", "/jobs?dag_id=a%00b"])
def test_a_zero_byte_is_in_no_name(people: People, path: str) -> None:
    enlist()
    assert people.vic.get(path).status_code == 422


def test_a_cursor_of_another_order_is_refused(people: People) -> None:
    enlist("a")
    enlist("b")
    cursor = people.vic.ok("GET", "/workers?limit=1")["next"]
    assert people.vic.get(f"/workers?limit=1&order=-name&after={cursor}").status_code == 422


WISHES: list[tuple[str, str, Any, dict[str, Any]]] = [
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


@pytest.mark.parametrize(("method", "wish", "body", "becomes"), WISHES)
def test_a_wish_is_stored_shown_and_audited(people: People, method: str, wish: str, body: Any, becomes: dict[str, Any]) -> None:
    enlist("edge")
    row = people.ann.ok(method, f"/workers/edge/{wish}", json=body)
    assert {key: row[key] for key in becomes} == becomes
    [entry] = audited("action", worker="edge")
    assert entry.actor == "ann"


def test_a_pause_may_last_a_while(people: People) -> None:
    enlist("edge")
    assert people.ann.ok("PUT", "/workers/edge/intent", json={"mode": "pause", "lasts_s": 3600})["intent_until"]
    answer = people.ann("PUT", "/workers/edge/intent", json={"mode": "serve", "lasts_s": 3600})
    assert answer.status_code == 422 and "only a pause" in answer.json()["detail"]


def test_a_suspension_is_lifted(people: People) -> None:
    enlist("edge")
    assert people.ann.ok("POST", "/workers/edge/suspend", json={})["suspended_at"]
    assert people.ann.ok("POST", "/workers/edge/unsuspend")["suspended_at"] is None


def test_an_alarm_is_cleared(people: People) -> None:
    worker = enlist("edge")
    with compat.transaction() as session:
        sessions.flag_clone(session, worker.id)
    assert people.vic.ok("GET", "/workers?flagged=true")["items"]
    assert people.ann.ok("POST", "/workers/edge/acknowledge")["alarm"] == ""
    assert people.ann("POST", "/workers/edge/acknowledge").status_code == 422


def test_a_worker_is_forgotten_unless_it_holds_jobs(people: People) -> None:
    worker = enlist("edge")
    lease = offered(worker)
    refused = people.ann("DELETE", "/workers/edge")
    assert refused.status_code == 422 and "drain it first" in refused.json()["detail"]
    with compat.transaction() as session:
        jobs.revoke(session, lease.job_id)
    people.ann.ok("DELETE", "/workers/edge", 204)
    assert names(people) == []


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
def test_what_makes_no_sense_changes_nothing_and_is_named(people: People, path: str, body: Any) -> None:
    enlist("edge")
    before = people.ann.ok("GET", "/workers/edge")
    answer = people.ann("PUT", f"/workers/edge/{path}", json=body)
    assert answer.status_code == 422 and answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["detail"].startswith("body.")
    assert people.ann.ok("GET", "/workers/edge") == before


@pytest.mark.parametrize("what", ["queues", "bundles"])
def test_a_worker_that_would_get_nothing_is_refused_with_what_to_do_instead(people: People, what: str) -> None:
    enlist("edge")
    before = people.ann.ok("GET", "/workers/edge")
    answer = people.ann("PUT", f"/workers/edge/{what}", json={what: []})
    assert answer.status_code == 422 and "pause it" in answer.json()["detail"]
    assert people.ann.ok("GET", "/workers/edge") == before


def test_the_list_costs_the_same_statements_whatever_the_fleet(people: People, database: Engine) -> None:
    people.vic.ok("GET", "/jobs")  # what he may see is known from here on
    for names in (["a"], [f"b{number}" for number in range(30)]):
        for name in names:
            running(enlist(name, [name]), name)
        with counted(database) as statements:
            people.vic.ok("GET", "/workers")
            people.vic.ok("GET", "/jobs")
        assert len(statements) <= 5, statements
