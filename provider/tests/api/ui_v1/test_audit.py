"""The audit and the accesses of jobs over REST."""

from __future__ import annotations

from typing import TYPE_CHECKING

from testkit.ledger import enlist, running  # isort: skip

from airflow_remote_provider import compat
from airflow_remote_provider.definitions.grants import Ask, GrantKind
from airflow_remote_provider.ledger import grants

if TYPE_CHECKING:
    from .conftest import Users


def asked(dag_id: str = "dag", *, name: str = "plant", worker: str = "edge") -> str:
    job_id = running(enlist(worker, [worker]), worker, dag_id=dag_id).job_id
    with compat.transaction() as session:
        grants.decide(session, job_id, Ask(GrantKind.CONNECTIONS, (name,)))
    return job_id


def test_the_audit_is_read_page_by_page_from_both_tables(users: Users) -> None:
    job_id = asked()
    users.ann.ok("PUT", "/workers/edge/intent", json={"mode": "pause"})
    whole = users.ann.ok("GET", "/audit")["items"]
    assert [row["kind"] for row in whole][:2] == ["action", "denied"]
    seen = []
    after = ""
    while after is not None:
        page = users.ann.ok("GET", f"/audit?limit=1&after={after}")
        seen += page["items"]
        after = page["next"]
    assert seen == whole
    kinds = {row["kind"] for row in users.ann.ok("GET", "/audit?kind=denied&kind=enrolled")["items"]}
    assert kinds == {"denied", "enrolled"}
    assert {row["worker"] for row in users.ann.ok("GET", "/audit?worker=edge")["items"]} == {"edge"}
    assert {row["job_id"] for row in users.ann.ok("GET", f"/audit?job_id={job_id}")["items"]} == {job_id}


def test_the_audit_hides_workers_of_other_teams(users: Users) -> None:
    enlist("reds", team="red")
    users.ann.ok("PUT", "/workers/reds/intent", json={"mode": "pause"})
    assert "reds" in {row["worker"] for row in users.ann.ok("GET", "/audit")["items"]}
    assert "reds" not in {row["worker"] for row in users.tom.ok("GET", "/audit")["items"]}


def test_accesses_are_shown_for_readable_dags(users: Users) -> None:
    asked("toms", name="a", worker="w1")
    asked("anns", name="b", worker="w2")
    assert [row["name"] for row in users.vic.ok("GET", "/accesses")["items"]] == ["b", "a"]
    assert [row["name"] for row in users.tom.ok("GET", "/accesses")["items"]] == ["a"]
    assert [row["name"] for row in users.vic.ok("GET", "/accesses?dag_id=anns")["items"]] == ["b"]
    assert [row["name"] for row in users.vic.ok("GET", "/accesses?worker=w1")["items"]] == ["a"]
    assert users.vic.ok("GET", "/accesses?answer=granted")["items"] == []
    first = users.vic.ok("GET", "/accesses?limit=1")
    assert [row["name"] for row in users.vic.ok("GET", f"/accesses?after={first['next']}")["items"]] == ["a"]
