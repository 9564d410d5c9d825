"""Explanations of why a job waits: each cause has a sentence, and the first cause that a user would check is named."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest

from testkit.ledger import ago, change_job, enlist, set_last_seen, offered, queued, running  # isort: skip

from airflow_remote_protocol.messages import IntentMode
from airflow_remote_provider import compat
from airflow_remote_provider.definitions.needs import encode_labels
from airflow_remote_provider.ledger import leases, suspension, workers
from airflow_remote_provider.ledger.errors import NotFound
from airflow_remote_provider.ledger.views.scope import EVERYTHING, Scope
from airflow_remote_provider.ledger.views.waiting import why_waiting

pytestmark = pytest.mark.usefixtures("database")


def _why(job_id: str, scope: Scope = EVERYTHING) -> str:
    with compat.transaction() as session:
        return why_waiting(session, job_id, silent_after=timedelta(seconds=90), scope=scope)


def _do(verb: object, *args: object, **kwargs: object) -> None:
    with compat.transaction() as session:
        verb(session, *args, **kwargs)  # type: ignore[operator]


def test_no_worker_serves_its_queue() -> None:
    enlist("edge", ["another"])
    assert "No worker serves the queue 'q'" in _why(queued().job_id)


def test_its_workers_are_of_another_team() -> None:
    enlist("edge", team="red")
    assert "1 worker(s) (edge) of the queue 'q' are not of the job's team (none)" in _why(queued().job_id)


def test_no_worker_has_its_labels() -> None:
    enlist("edge", labels={"site": "kiel"})
    why = _why(queued(labels=encode_labels({"gpu": "yes", "site": "kiel"})).job_id)
    assert "has the labels gpu=yes, site=kiel" in why and "labels NAME gpu=yes,site=kiel" in why


def test_no_worker_is_allowed_to_run_its_bundle() -> None:
    enlist("edge", bundles=["plant"])
    assert "is allowed to run jobs of the bundle 'office'" in _why(queued(bundle="office").job_id)


def test_its_workers_are_not_online() -> None:
    for number in range(5):
        set_last_seen(enlist(f"edge-{number}").id, ago(hours=1))
    why = _why(queued().job_id)
    assert "5 worker(s) (edge-0, edge-1, edge-2, …)" in why and "are not online; last contact: " in why


def test_its_workers_are_suspended_or_paused_by_a_user_for_a_reason() -> None:
    enlist("edge")
    job = queued().job_id
    _do(workers.set_intent, "edge", IntentMode.PAUSE, by="ann", reason="patching")
    assert _why(job) == "The workers of the queue 'q' take no jobs: edge is set to pause by ann: \"patching\"."
    _do(suspension.suspend, "edge", by="ann")
    assert "suspended" in _why(job)


def test_delayed_jobs_and_jobs_of_other_teams_do_not_go_first() -> None:
    enlist("edge")
    for changes in ({"not_before": ago(minutes=-5)}, {"team": "red"}):
        change_job(queued().job_id, **changes)
    assert _why(queued().job_id) == "It will be offered to one of 1 worker(s) (edge) in a moment."


def test_the_time_of_the_next_free_slot_is_estimated() -> None:
    worker = enlist("edge", slots=1)
    last = running(worker)
    change_job(last.job_id, accepted_at=ago(minutes=30), ended_at=ago(minutes=25), state="succeeded")
    now = running(worker)
    change_job(now.job_id, accepted_at=ago(minutes=1))
    job = queued().job_id
    assert re.search(r"All 1 slots of 1 worker\(s\) \(edge\) are in use; the next may be free in 2[34]\d s\.", _why(job))
    change_job(now.job_id, accepted_at=ago(minutes=9))
    assert _why(job).endswith("are in use; the next may be free at any moment.")


def test_it_needs_more_slots_than_any_worker_has() -> None:
    enlist("edge", slots=2)
    assert _why(queued(slots=4).job_id) == "It needs 4 slots; the largest of 1 worker(s) (edge) has 2."


def test_all_slots_are_in_use_or_too_few_are_free() -> None:
    worker = enlist("edge", slots=4)
    running(worker, slots=2)
    wide = queued(slots=3).job_id
    assert "It needs 3 slots on one worker; 2 of the 4 slots of 1 worker(s) (edge) are in use" in _why(wide)
    change_job(wide, state="revoked")
    running(worker, slots=2)
    assert _why(queued().job_id) == "All 4 slots of 1 worker(s) (edge) are in use."


def test_others_go_first() -> None:
    enlist("edge")
    queued(priority=5)
    assert "1 job(s) of the queue 'q' go first" in _why(queued().job_id)


def test_it_will_be_offered_in_a_moment() -> None:
    enlist("edge")
    assert "will be offered to one of" in _why(queued().job_id)


def test_it_was_declined_or_not_accepted_and_is_offered_again() -> None:
    lease = offered(enlist("edge"))
    _do(leases.decline, lease, "the disk is full", delay=timedelta(seconds=40))
    why = _why(lease.job_id)
    assert "declined by edge: the disk is full" in why and "offered again in" in why
    change_job(lease.job_id, reason="", offers=2)
    assert "It was offered 2 time(s), last to edge, and not accepted in time" in _why(lease.job_id)


def test_a_job_that_has_begun_is_described_by_its_state() -> None:
    worker = enlist("edge")
    assert "It was offered to edge" in _why(offered(worker).job_id)
    assert "It has been running on edge for" in _why(running(worker).job_id)
    job = queued().job_id
    change_job(job, state="failed", reason="nobody accepted it")
    assert _why(job) == "It has ended: failed, nobody accepted it."


def test_workers_of_another_team_are_not_named(database: object) -> None:
    enlist("secret-site", team="red")
    why = _why(queued().job_id, Scope(teams={"blue"}))
    assert "secret-site" not in why and "No worker serves" in why


def test_a_job_of_a_dag_outside_the_scope_is_not_found() -> None:
    with pytest.raises(NotFound):
        _why(queued(dag_id="anns").job_id, Scope(dags={"toms"}))
