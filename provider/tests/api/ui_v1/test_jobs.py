"""Jobs over REST."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest

from testkit.ledger import ago, change_job, enlist, offered, queued  # isort: skip

from airflow_remote_protocol.messages import JobKind

if TYPE_CHECKING:
    from .conftest import Users


def ids(users: Users, query: str) -> set[str]:
    return {row["id"] for row in users.vic.ok("GET", f"/jobs?{query}")["items"]}


def test_jobs_are_listed_newest_first_page_by_page(users: Users) -> None:
    made = [queued(run_id=f"r{number}").job_id for number in range(5)]
    for number, job_id in enumerate(made):
        change_job(job_id, queued_at=ago(minutes=number // 2))
    whole = [row["id"] for row in users.vic.ok("GET", "/jobs")["items"]]
    assert set(whole[:2]) == set(made[:2]) and whole[4] == made[4]
    first = users.vic.ok("GET", "/jobs?limit=3")
    queued()  # a new job appears on the first page and shifts no other page
    second = users.vic.ok("GET", f"/jobs?limit=3&after={first['next']}")
    assert [row["id"] for row in first["items"] + second["items"]] == whole
    assert second["next"] is None


def test_jobs_are_filtered(users: Users) -> None:
    waiting = queued("a", dag_id="Dough", run_id="r1", task_id="knead", map_index=3).job_id
    held = offered(enlist("edge", ["b"]), "b", dag_id="bread", run_id="r2", task_id="bake").job_id
    change_job(waiting, queued_at=ago(hours=2))
    assert ids(users, "state=queued") == ids(users, "queue=a") == ids(users, "dag_id=Dough") == {waiting}
    assert ids(users, "worker=edge") == ids(users, "run_id=r2") == ids(users, "task_id=bake") == {held}
    assert ids(users, "map_index=3") == {waiting} and ids(users, "map_index=-1") == {held}
    assert ids(users, "text=dOUG") == ids(users, "text=kne") == {waiting}
    assert ids(users, "state=queued&state=offered") == ids(users, "kind=task") == {waiting, held}
    assert ids(users, "kind=callback") == ids(users, "state=queued&queue=b") == set()
    assert ids(users, f"queued_before={quote(ago(hours=1).isoformat())}") == ids(users, "older_than_s=3600") == {waiting}
    assert ids(users, "older_than_s=10000") == set()


def test_a_job_is_shown(users: Users) -> None:
    lease = offered(enlist("edge"))
    row = users.vic.ok("GET", f"/jobs/{lease.job_id}")
    assert (row["state"], row["worker"], row["epoch"]) == ("offered", "edge", 1)
    assert "workload" not in row and "log_path" not in row


def test_a_job_is_stopped_by_a_user_who_can_end_its_dags_tasks(users: Users) -> None:
    toms, anns = queued(dag_id="toms").job_id, queued(dag_id="anns").job_id
    assert users.tom("POST", f"/jobs/{anns}/stop", json={}).status_code == 404
    row = users.tom.ok("POST", f"/jobs/{toms}/stop", 202, json={"reason": "wrong data"})
    assert (row["state"], row["reason"]) == ("revoked", "stopped by tom: wrong data")
    refused = users.vic("POST", f"/jobs/{anns}/stop", json={})
    assert refused.status_code == 403 and "task instances" in refused.json()["detail"]
    users.accounts["vic"].ends = True
    users.vic.ok("POST", f"/jobs/{anns}/stop", 202, json={})


def test_a_job_without_a_dag_is_stopped_by_a_manager(users: Users) -> None:
    test = queued(kind=JobKind.CONNECTION_TEST, dag_id="", ti_id=None, with_task=False).job_id
    users.accounts["vic"].ends = True
    assert users.vic("POST", f"/jobs/{test}/stop", json={}).status_code == 403
    users.ann.ok("POST", f"/jobs/{test}/stop", 202, json={})


def test_the_reason_why_a_job_waits_is_shown(users: Users) -> None:
    job = queued("nowhere")
    assert "No worker serves" in users.vic.ok("GET", f"/jobs/{job.job_id}/waiting")["why"]
    assert users.tom.get(f"/jobs/{job.job_id}/waiting").status_code == 404


@pytest.mark.parametrize(
    "query", ["state=dancing", "kind=none", "queued_before=yesterday", "older_than_s=-1", "older_than_s=1e300", "order=state"]
)
def test_an_invalid_filter_is_named(users: Users, query: str) -> None:
    answer = users.vic.get(f"/jobs?{query}")
    assert answer.status_code == 422 and answer.json()["detail"]
