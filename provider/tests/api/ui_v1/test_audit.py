"""The audit and what jobs asked for, over REST."""

from __future__ import annotations

from typing import TYPE_CHECKING

from testkit.ledger import enlist, running  # isort: skip

from airflow_remote_provider import compat
from airflow_remote_provider.definitions.grants import Ask, GrantKind
from airflow_remote_provider.ledger import grants

if TYPE_CHECKING:
    from .conftest import People


def asked(dag_id: str = "dag", *, name: str = "plant", worker: str = "edge") -> str:
    job_id = running(enlist(worker, [worker]), worker, dag_id=dag_id).job_id
    with compat.transaction() as session:
        grants.decide(session, job_id, Ask(GrantKind.CONNECTIONS, (name,)))
    return job_id


def test_what_happened_is_read_page_by_page_from_both_tables(people: People) -> None:
    job_id = asked()
    people.ann.ok("PUT", "/workers/edge/intent", json={"mode": "pause"})
    whole = people.ann.ok("GET", "/audit")["items"]
    assert [row["kind"] for row in whole][:2] == ["action", "denied"]
    seen = []
    after = ""
    while after is not None:
        page = people.ann.ok("GET", f"/audit?limit=1&after={after}")
        seen += page["items"]
        after = page["next"]
    assert seen == whole
    kinds = {row["kind"] for row in people.ann.ok("GET", "/audit?kind=denied&kind=enrolled")["items"]}
    assert kinds == {"denied", "enrolled"}
    assert {row["worker"] for row in people.ann.ok("GET", "/audit?worker=edge")["items"]} == {"edge"}
    assert {row["job_id"] for row in people.ann.ok("GET", f"/audit?job_id={job_id}")["items"]} == {job_id}


def test_another_teams_workers_are_not_in_it(people: People) -> None:
    enlist("reds", team="red")
    people.ann.ok("PUT", "/workers/reds/intent", json={"mode": "pause"})
    assert "reds" in {row["worker"] for row in people.ann.ok("GET", "/audit")["items"]}
    assert "reds" not in {row["worker"] for row in people.tom.ok("GET", "/audit")["items"]}


def test_what_jobs_asked_for_is_shown_of_readable_dags(people: People) -> None:
    asked("his", name="a", worker="w1")
    asked("hers", name="b", worker="w2")
    assert [row["name"] for row in people.vic.ok("GET", "/accesses")["items"]] == ["b", "a"]
    assert [row["name"] for row in people.tom.ok("GET", "/accesses")["items"]] == ["a"]
    assert [row["name"] for row in people.vic.ok("GET", "/accesses?dag_id=hers")["items"]] == ["b"]
    assert [row["name"] for row in people.vic.ok("GET", "/accesses?worker=w1")["items"]] == ["a"]
    assert people.vic.ok("GET", "/accesses?answer=granted")["items"] == []
    first = people.vic.ok("GET", "/accesses?limit=1")
    assert [row["name"] for row in people.vic.ok("GET", f"/accesses?after={first['next']}")["items"]] == ["a"]
