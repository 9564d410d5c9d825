"""Jobs whose worker was silent for too long or came back without them, and times after the clock was set."""

from __future__ import annotations

from datetime import timedelta

import pytest

from testkit.ledger import (  # isort: skip
    ago,
    audit_entries,
    change_job,
    enlist,
    job_row,
    set_last_seen,
    offered,
    queued,
    running,
)

from airflow_remote_provider import compat
from airflow_remote_provider.ledger import (
    lost_jobs,
)
from airflow_remote_provider.models import WorkerContact

pytestmark = pytest.mark.usefixtures("database")


def _do(verb: object, *args: object, **kwargs: object) -> object:
    with compat.transaction() as session:
        return verb(session, *args, **kwargs)  # type: ignore[operator]


@pytest.mark.parametrize(("silent_s", "lost"), [(30, 0), (59, 0), (61, 1)])
def test_a_job_is_lost_when_its_worker_was_silent_for_too_long(silent_s: float, lost: int) -> None:
    worker = enlist("edge-1")
    lease = running(worker, lost_after_s=60)
    change_job(lease.job_id, accepted_at=ago(hours=9))
    set_last_seen(worker.id, ago(seconds=silent_s))
    assert _do(lost_jobs.lose_silent) == lost
    row = job_row(lease.job_id)
    assert row.state == ("lost" if lost else "running")
    if lost:
        assert "edge-1" in row.reason and "0:01:00" in row.reason and row.ended_at is not None


def test_each_job_has_its_own_limit_of_silence() -> None:
    worker = enlist()
    hasty, patient = running(worker, lost_after_s=60), running(worker, lost_after_s=3600)
    for lease in (hasty, patient):
        change_job(lease.job_id, accepted_at=ago(hours=1))
    set_last_seen(worker.id, ago(minutes=10))
    assert _do(lost_jobs.lose_silent) == 1
    assert (job_row(hasty.job_id).state, job_row(patient.job_id).state) == ("lost", "running")


def test_silence_counts_from_acceptance_if_no_contact_is_stored() -> None:
    worker = enlist()
    fresh, old = running(worker, lost_after_s=60), running(worker, lost_after_s=60)
    change_job(old.job_id, accepted_at=ago(minutes=2))
    set_last_seen(worker.id, None)
    assert _do(lost_jobs.lose_silent) == 1
    assert (job_row(fresh.job_id).state, job_row(old.job_id).state) == ("running", "lost")


def test_an_acceptance_counts_as_a_contact_even_if_not_stored_as_one() -> None:
    worker = enlist()
    lease = running(worker, lost_after_s=60)
    set_last_seen(worker.id, ago(minutes=5))  # its poll was parked for long
    assert _do(lost_jobs.lose_silent) == 0
    assert job_row(lease.job_id).state == "running"


def test_an_acceptance_in_the_future_does_not_hide_a_silence() -> None:
    worker = enlist()
    lease = running(worker, lost_after_s=60)
    change_job(lease.job_id, accepted_at=ago(days=-1))
    set_last_seen(worker.id, ago(minutes=5))
    assert _do(lost_jobs.lose_silent) == 1


def test_only_running_jobs_are_lost_by_silence() -> None:
    worker = enlist()
    offer = offered(worker, lost_after_s=60)
    set_last_seen(worker.id, ago(days=1))
    assert _do(lost_jobs.lose_silent) == 0
    assert job_row(offer.job_id).state == "offered", "its deadline takes care of it"


def test_a_lost_job_is_in_the_audit() -> None:
    worker = enlist("edge-1")
    lease = running(worker, lost_after_s=60, dag_id="etl", task_id="load", try_number=2, run_id="r1")
    change_job(lease.job_id, accepted_at=ago(hours=1))
    set_last_seen(worker.id, ago(minutes=2))
    _do(lost_jobs.lose_silent)
    (entry,) = audit_entries(job_id=lease.job_id)
    assert (entry.kind, entry.worker, entry.job_id, entry.times) == ("job-lost", "edge-1", lease.job_id, 1)
    assert "etl.load (try 2, run r1)" in entry.detail and "no contact from worker edge-1" in entry.detail


@pytest.mark.parametrize(("missing_s", "lost"), [(None, 0), (14, 0), (16, 1)])
def test_a_job_that_its_worker_does_not_list_is_lost_after_the_grace_period(missing_s: float | None, lost: int) -> None:
    lease = running(enlist("edge-1"))
    change_job(lease.job_id, missing_since=None if missing_s is None else ago(seconds=missing_s))
    assert _do(lost_jobs.lose_missing, grace=timedelta(seconds=15)) == lost
    row = job_row(lease.job_id)
    assert row.state == ("lost" if lost else "running")
    assert not lost or row.reason == "worker edge-1 came back without this job"


# The clock of the database is set


def test_times_are_corrected_after_the_clock_was_set() -> None:
    worker = enlist(slots=9)
    ahead, over, held = offered(worker), offered(worker), running(worker)
    waiting = queued("elsewhere")
    change_job(ahead.job_id, deadline_at=ago(days=-1))
    change_job(over.job_id, deadline_at=ago(days=1))
    change_job(waiting.job_id, not_before=ago(days=-1))
    change_job(held.job_id, missing_since=ago(days=-1))
    set_last_seen(worker.id, ago(days=-1))
    _do(lost_jobs.rebase_times, offer_deadline=timedelta(seconds=30))
    for lease in (ahead, over):
        assert ago(seconds=-10) < job_row(lease.job_id).deadline_at < ago(seconds=-40)  # type: ignore[operator]
    assert job_row(waiting.job_id).not_before is None
    assert job_row(held.job_id).missing_since < ago(seconds=-5)  # type: ignore[operator]
    with compat.transaction() as session:
        assert session.get(WorkerContact, worker.id).last_seen_at < ago(seconds=-5)  # type: ignore[union-attr, operator]


def test_the_correction_does_not_shorten_a_silence() -> None:
    worker = enlist()
    silent_since = ago(minutes=30)
    set_last_seen(worker.id, silent_since)
    _do(lost_jobs.rebase_times, offer_deadline=timedelta(seconds=30))
    with compat.transaction() as session:
        assert session.get(WorkerContact, worker.id).last_seen_at == silent_since  # type: ignore[union-attr]
