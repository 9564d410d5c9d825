"""Workers whose jobs fail before their own code begins: counted, flagged, paused, tried again with one job at a time."""

from __future__ import annotations

import pytest

from testkit.ledger import ago, audit_entries, claim, enlist, job_row, queued, running, worker_row, Enlisted  # isort: skip

from airflow_remote_protocol.messages import IntentMode, Outcome, Report
from airflow_remote_provider import compat
from airflow_remote_provider.ledger import breaker, fence, leases, workers
from airflow_remote_provider.ledger.leases import JobEnd
from airflow_remote_provider.models import Job
from sqlalchemy import update

pytestmark = pytest.mark.usefixtures("database")


def _end(worker: Enlisted, outcome: Outcome = Outcome.FAILED) -> tuple[fence.WorkerLease, JobEnd | None]:
    lease = running(worker)
    with compat.transaction() as session:
        return lease, leases.report(session, lease, Report(outcome, 1, "no such Dag"))


def _fail(worker: Enlisted) -> None:
    lease, end = _end(worker)
    assert end is not None
    with compat.transaction() as session:
        breaker.note_failure(session, lease, end.reason)


def test_three_failures_in_a_row_pause_the_worker_if_the_task_succeeds_elsewhere() -> None:
    _end(enlist("sound"), Outcome.SUCCEEDED)
    broken = enlist("broken")
    for _ in range(2):
        _fail(broken)
    assert worker_row(broken.id).alarm == ""
    _fail(broken)
    row = worker_row(broken.id)
    assert row.intent == IntentMode.PAUSE.value
    assert row.intent_until is not None and row.intent_until > ago(minutes=-9)
    assert "its last 3 jobs failed before their own code began, the last one with: no such Dag" in row.alarm
    assert [entry.worker for entry in audit_entries("breaker")] == ["broken"]


def test_without_a_success_elsewhere_the_worker_gets_an_alarm_but_no_pause() -> None:
    broken = enlist("broken")
    for _ in range(3):
        _fail(broken)
    row = worker_row(broken.id)
    assert row.intent == IntentMode.SERVE.value
    assert "the same task has not succeeded on another worker recently, so this worker is not paused" in row.alarm


def test_a_task_that_succeeds_nowhere_pauses_no_worker() -> None:
    lease = running(enlist("sound"), task_id="another")
    with compat.transaction() as session:
        leases.report(session, lease, Report(Outcome.SUCCEEDED, 0))
    broken = enlist("broken")
    for _ in range(3):
        _fail(broken)
    assert worker_row(broken.id).intent == IntentMode.SERVE.value


def test_after_the_pause_it_gets_one_job_at_a_time_until_one_begins() -> None:
    broken = enlist("broken", slots=4)
    for _ in range(3):
        _fail(broken)
    for _ in range(3):
        queued()
    assert len(claim(broken.claimant())) == 1
    assert claim(broken.claimant(3)) == []
    with compat.transaction() as session:
        breaker.note_begun(session, broken.id)
    assert len(claim(broken.claimant(3))) == 2


def test_earlier_jobs_do_not_count_as_the_one_job_which_may_be_large() -> None:
    broken = enlist("broken", slots=4)
    old = running(broken, slots=2)
    for _ in range(3):
        _fail(broken)
    with compat.transaction() as session:
        session.execute(update(Job).where(Job.id == old.job_id).values(offered_at=ago(minutes=11)))
    for _ in range(2):
        queued(slots=2)
    assert len(claim(broken.claimant(2))) == 1
    assert claim(broken.claimant(2)) == []


def test_each_further_failure_pauses_for_longer() -> None:
    _end(enlist("sound"), Outcome.SUCCEEDED)
    broken = enlist("broken")
    for _ in range(3):
        _fail(broken)
    first = worker_row(broken.id).intent_until
    with compat.transaction() as session:
        workers.set_intent(session, "broken", IntentMode.SERVE, by="admin")
    _fail(broken)
    second = worker_row(broken.id).intent_until
    assert first is not None and second is not None and (second - first).total_seconds() > 500


def test_clearing_the_alarm_resets_the_failures() -> None:
    broken = enlist("broken")
    for _ in range(3):
        _fail(broken)
    with compat.transaction() as session:
        workers.acknowledge(session, "broken", by="admin")
    assert worker_row(broken.id).early_failures == 0


def test_a_stopped_job_is_not_counted_against_its_worker() -> None:
    lease, end = _end(enlist(), Outcome.STOPPED)
    assert end is None
    assert job_row(lease.job_id).outcome == "stopped"


def test_a_repeated_report_counts_once() -> None:
    worker = enlist()
    lease, end = _end(worker)
    assert end == JobEnd(is_success=False, was_accepted=True, has_written=False, reason="no such Dag")
    with compat.transaction() as session:
        assert leases.report(session, lease, Report(Outcome.FAILED, 1)) is None
