"""Jobs over REST."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest

from testkit.ledger import ago, change_job, enlist, offered, queued  # isort: skip

from airflow_remote_protocol.messages import JobKind

if TYPE_CHECKING:
    from .conftest import People


def ids(people: People, query: str) -> set[str]:
    return {row["id"] for row in people.vic.ok("GET", f"/jobs?{query}")["items"]}


def test_the_newest_come_first_page_by_page(people: People) -> None:
    made = [queued(run_id=f"r{number}").job_id for number in range(5)]
    for number, job_id in enumerate(made):
        change_job(job_id, queued_at=ago(minutes=number // 2))
    whole = [row["id"] for row in people.vic.ok("GET", "/jobs")["items"]]
    assert set(whole[:2]) == set(made[:2]) and whole[4] == made[4]
    first = people.vic.ok("GET", "/jobs?limit=3")
    queued()  # what comes meanwhile is on the first page, and shifts no other
    second = people.vic.ok("GET", f"/jobs?limit=3&after={first['next']}")
    assert [row["id"] for row in first["items"] + second["items"]] == whole
    assert second["next"] is None


def test_they_are_filtered(people: People) -> None:
    waiting = queued("a", dag_id="Dough", run_id="r1", task_id="knead", map_index=3).job_id
    held = offered(enlist("edge", ["b"]), "b", dag_id="bread", run_id="r2", task_id="bake").job_id
    change_job(waiting, queued_at=ago(hours=2))
    assert ids(people, "state=queued") == ids(people, "queue=a") == ids(people, "dag_id=Dough") == {waiting}
    assert ids(people, "worker=edge") == ids(people, "run_id=r2") == ids(people, "task_id=bake") == {held}
    assert ids(people, "map_index=3") == {waiting} and ids(people, "map_index=-1") == {held}
    assert ids(people, "text=dOUG") == ids(people, "text=kne") == {waiting}
    assert ids(people, "state=queued&state=offered") == ids(people, "kind=task") == {waiting, held}
    assert ids(people, "kind=callback") == ids(people, "state=queued&queue=b") == set()
    assert ids(people, f"queued_before={quote(ago(hours=1).isoformat())}") == ids(people, "older_than_s=3600") == {waiting}
    assert ids(people, "older_than_s=10000") == set()


def test_one_is_shown(people: People) -> None:
    lease = offered(enlist("edge"))
    row = people.vic.ok("GET", f"/jobs/{lease.job_id}")
    assert (row["state"], row["worker"], row["epoch"]) == ("offered", "edge", 1)
    assert "workload" not in row and "log_path" not in row


def test_one_is_stopped_by_who_may_end_its_dags_tasks(people: People) -> None:
    his, hers = queued(dag_id="his").job_id, queued(dag_id="hers").job_id
    assert people.tom("POST", f"/jobs/{hers}/stop", json={}).status_code == 404
    row = people.tom.ok("POST", f"/jobs/{his}/stop", 202, json={"reason": "wrong data"})
    assert (row["state"], row["reason"]) == ("revoked", "stopped by tom: wrong data")
    refused = people.vic("POST", f"/jobs/{hers}/stop", json={})
    assert refused.status_code == 403 and "task instances" in refused.json()["detail"]
    people.users["vic"].ends = True
    people.vic.ok("POST", f"/jobs/{hers}/stop", 202, json={})


def test_a_job_of_no_dag_is_stopped_by_who_may_manage_workers(people: People) -> None:
    test = queued(kind=JobKind.CONNECTION_TEST, dag_id="", ti_id=None, with_task=False).job_id
    people.users["vic"].ends = True
    assert people.vic("POST", f"/jobs/{test}/stop", json={}).status_code == 403
    people.ann.ok("POST", f"/jobs/{test}/stop", 202, json={})


def test_why_it_waits_is_said(people: People) -> None:
    job = queued("nowhere")
    assert "No worker may serve" in people.vic.ok("GET", f"/jobs/{job.job_id}/waiting")["why"]
    assert people.tom.get(f"/jobs/{job.job_id}/waiting").status_code == 404


@pytest.mark.parametrize(
    "query", ["state=dancing", "kind=none", "queued_before=yesterday", "older_than_s=-1", "older_than_s=1e300", "order=state"]
)
def test_what_makes_no_sense_is_named(people: People, query: str) -> None:
    answer = people.vic.get(f"/jobs?{query}")
    assert answer.status_code == 422 and answer.json()["detail"]
