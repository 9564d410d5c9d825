"""Calls of a worker about its jobs."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import update

from testkit.ledger import (  # isort: skip
    TaskInstance,
    ago,
    audit_entries,
    change_job,
    claim,
    enlist,
    job_row,
    offered,
    running,
    session_request,
)

from airflow_remote_protocol.messages import HeldJob, JobKind, JobPhase, Outcome, Report, Stop, StopReason
from airflow_remote_provider import compat
from airflow_remote_provider.ledger import expired_offers, jobs, leases, log_places, sessions
from airflow_remote_provider.ledger.errors import Impossible, LeaseLapsed, RetryLater, Superseded, TooLate
from airflow_remote_provider.ledger.fence import Subject, WorkerLease
from airflow_remote_provider.models import Worker
from airflow_remote_provider.settings import settings

pytestmark = pytest.mark.usefixtures("database")

DEADLINE = timedelta(seconds=30)


def _do(verb: object, *args: object, **kwargs: object) -> object:
    with compat.transaction() as session:
        return verb(session, *args, **kwargs)  # type: ignore[operator]


def _renew(worker_id: str, *held: HeldJob) -> list[Stop]:
    with compat.transaction() as session:
        return leases.renew(session, worker_id, held, deadline=DEADLINE, prepare=timedelta(hours=1))


def _reoffered(worker: object, lease: WorkerLease) -> WorkerLease:
    """Withdraw the offer and make it again, to the same worker."""
    _do(leases.withdraw, [lease])
    (again,) = claim(worker.claimant())  # type: ignore[attr-defined]
    return WorkerLease(lease.worker_id, again.job_id, again.epoch)


def _facts(job_id: str) -> dict[str, object]:
    row = job_row(job_id)
    return {column.name: getattr(row, column.name) for column in row.__table__.columns}


# Accept, decline, withdraw


def test_a_repeated_acceptance_changes_nothing() -> None:
    lease = offered(enlist())
    subject = _do(leases.accept, lease)
    before = _facts(lease.job_id)
    assert (before["state"], before["deadline_at"]) == ("running", None)
    assert _do(leases.accept, lease) == subject == Subject(JobKind.TASK, before["ti_id"], "dag", "run", "task", -1)
    assert _facts(lease.job_id) == before


def test_a_declined_offer_is_delayed_and_does_not_count() -> None:
    worker = enlist()
    lease = offered(worker)
    _do(leases.decline, lease, "disk full", delay=timedelta(seconds=60))
    row = job_row(lease.job_id)
    assert (row.state, row.offers, row.deadline_at) == ("queued", 0, None)
    assert "disk full" in row.reason and worker.name in row.reason
    assert claim(worker.claimant()) == []
    change_job(lease.job_id, not_before=ago(seconds=1))
    assert claim(worker.claimant())[0].epoch == 2


def test_a_running_job_cannot_be_declined() -> None:
    lease = running(enlist())
    with pytest.raises(Superseded):
        _do(leases.decline, lease, "too late", delay=DEADLINE)
    assert job_row(lease.job_id).state == "running"


def test_withdrawn_offers_are_queued_at_once_and_do_not_count() -> None:
    worker = enlist()
    lease = offered(worker)
    _do(leases.withdraw, [lease])
    row = job_row(lease.job_id)
    assert (row.state, row.offers, row.deadline_at, row.not_before) == ("queued", 0, None, None)
    assert len(claim(worker.claimant())) == 1


def test_only_an_unchanged_offer_is_withdrawn() -> None:
    worker = enlist()
    accepted, stale = running(worker), offered(worker)
    fresh = _reoffered(worker, stale)
    _do(leases.withdraw, [accepted, stale, WorkerLease(worker.id, "no such job", 1)])
    assert (job_row(accepted.job_id).state, job_row(fresh.job_id).state) == ("running", "offered")


# Renew


def test_listing_as_preparing_renews_the_deadline() -> None:
    worker = enlist()
    lease = offered(worker)
    change_job(lease.job_id, deadline_at=ago(seconds=-1))
    assert _renew(worker.id, HeldJob(lease.job_id, lease.epoch, JobPhase.PREPARING)) == []
    deadline = job_row(lease.job_id).deadline_at
    assert deadline is not None and deadline > ago(seconds=-20)


@pytest.mark.parametrize("phase", [JobPhase.RUNNING, JobPhase.STOPPING, JobPhase.ENDED])
def test_listing_in_another_phase_does_not_renew_the_deadline(phase: JobPhase) -> None:
    worker = enlist()
    lease = offered(worker)
    change_job(lease.job_id, deadline_at=ago(seconds=-1))
    _renew(worker.id, HeldJob(lease.job_id, lease.epoch, phase))
    deadline = job_row(lease.job_id).deadline_at
    assert deadline is not None and deadline < ago(seconds=-20)


def test_a_worker_cannot_renew_the_offer_of_another() -> None:
    mine, other = enlist("mine"), enlist("other")
    lease = offered(mine)
    change_job(lease.job_id, deadline_at=ago(seconds=-1))
    (stop,) = _renew(other.id, HeldJob(lease.job_id, lease.epoch, JobPhase.PREPARING))
    assert stop.reason is StopReason.SUPERSEDED
    deadline = job_row(lease.job_id).deadline_at
    assert deadline is not None and deadline < ago(seconds=-20)


def test_a_listed_job_that_belongs_to_another_lease_is_superseded() -> None:
    worker = enlist()
    old = offered(worker)
    _reoffered(worker, old)
    failed = running(worker)
    change_job(failed.job_id, state="failed")
    held = [HeldJob(job_id, epoch, JobPhase.RUNNING) for job_id, epoch in ((old.job_id, 1), (failed.job_id, 1), ("unknown", 1))]
    assert [(stop.job_id, stop.reason) for stop in _renew(worker.id, *held)] == [
        (old.job_id, StopReason.SUPERSEDED),
        (failed.job_id, StopReason.SUPERSEDED),
        ("unknown", StopReason.SUPERSEDED),
    ]


def test_a_listed_lost_job_is_stopped_and_its_log_is_still_accepted() -> None:
    worker = enlist()
    lease = running(worker)
    change_job(lease.job_id, state="lost")
    found = {phase: _renew(worker.id, HeldJob(lease.job_id, lease.epoch, phase)) for phase in JobPhase}
    assert {phase: [stop.reason for stop in stops] for phase, stops in found.items()} == {
        JobPhase.PREPARING: [StopReason.LOST],
        JobPhase.RUNNING: [StopReason.LOST],
        JobPhase.STOPPING: [],
        JobPhase.ENDED: [],
    }
    assert _do(log_places.log_place, lease)


def test_a_job_that_is_listed_again_is_no_longer_missing() -> None:
    worker = enlist()
    lease = running(worker)
    _do(leases.reconcile, worker.id, [])
    assert _renew(worker.id, HeldJob(lease.job_id, lease.epoch, JobPhase.RUNNING)) == []
    assert job_row(lease.job_id).missing_since is None


def test_a_stop_is_sent_until_the_worker_reports_that_it_stops() -> None:
    worker = enlist()
    lease = running(worker)
    _do(jobs.revoke, lease.job_id)
    found = {phase: _renew(worker.id, HeldJob(lease.job_id, lease.epoch, phase)) for phase in JobPhase}
    assert {phase: [stop.reason.value for stop in stops] for phase, stops in found.items()} == {
        JobPhase.PREPARING: ["revoked"],
        JobPhase.RUNNING: ["revoked"],
        JobPhase.STOPPING: [],
        JobPhase.ENDED: [],
    }


def test_a_poll_without_jobs_runs_no_statement() -> None:
    assert _renew(enlist().id) == []


# Stops


def test_the_stop_of_an_offer_is_sent_for_a_few_minutes_only() -> None:
    worker = enlist()
    lease = offered(worker)
    _do(jobs.revoke, lease.job_id)
    assert len(leases_of(worker.id)) == 1
    change_job(lease.job_id, ended_at=ago(minutes=6))
    assert leases_of(worker.id) == []


def test_the_stop_of_a_running_job_is_sent_as_long_as_it_runs() -> None:
    worker = enlist()
    lease = running(worker)
    assert leases_of(worker.id) == []
    _do(jobs.revoke, lease.job_id)
    assert len(leases_of(worker.id)) == 1
    _do(leases.report, lease, Report(Outcome.STOPPED))
    change_job(lease.job_id, ended_at=ago(minutes=6))
    assert leases_of(worker.id) == []


def leases_of(worker_id: str) -> list[Stop]:
    with compat.transaction() as session:
        return leases.stops_for(session, [worker_id]).get(worker_id, [])


# A new session


def test_an_offer_that_a_new_session_does_not_list_is_queued_again() -> None:
    worker = enlist()
    lease = offered(worker)
    _do(leases.reconcile, worker.id, [])
    row = job_row(lease.job_id)
    assert (row.state, row.offers) == ("queued", 0)


def test_a_running_job_that_a_new_session_does_not_list_is_missing() -> None:
    worker = enlist()
    lease = running(worker)
    _do(leases.reconcile, worker.id, [])
    row = job_row(lease.job_id)
    assert row.state == "running" and row.missing_since is not None
    _do(leases.reconcile, worker.id, [])
    assert job_row(lease.job_id).missing_since == row.missing_since, "since the first session that did not list it"
    _do(leases.reconcile, worker.id, [HeldJob(lease.job_id, lease.epoch, JobPhase.RUNNING)])
    assert job_row(lease.job_id).missing_since is None


def test_listed_jobs_stay() -> None:
    worker = enlist()
    first, second = running(worker), offered(worker)
    held = [HeldJob(lease.job_id, lease.epoch, JobPhase.RUNNING) for lease in (first, second)]
    _do(leases.reconcile, worker.id, held)
    assert (job_row(first.job_id).state, job_row(second.job_id).state) == ("running", "offered")


def test_a_job_listed_at_another_epoch_counts_as_missing() -> None:
    worker = enlist()
    lease = running(worker)
    _do(leases.reconcile, worker.id, [HeldJob(lease.job_id, lease.epoch + 1, JobPhase.RUNNING)])
    assert job_row(lease.job_id).missing_since is not None


def test_jobs_of_other_workers_stay() -> None:
    mine, other = enlist("mine"), enlist("other")
    lease = running(other)
    _do(leases.reconcile, mine.id, [])
    assert job_row(lease.job_id).state == "running"


# Report

EXPECTED = {
    Outcome.SUCCEEDED: "succeeded",
    Outcome.FAILED: "failed",
    Outcome.STOPPED: "failed",
    Outcome.UNPREPARED: "failed",
    Outcome.DIED: "failed",
}


@pytest.mark.parametrize("outcome", list(Outcome))
def test_a_report_ends_the_job(outcome: Outcome) -> None:
    lease = running(enlist())
    _do(leases.report, lease, Report(outcome, 3, "why", 12, "a" * 64))
    row = job_row(lease.job_id)
    assert row.state == EXPECTED[outcome]
    assert (row.outcome, row.exit_code, row.reason, row.log_size, row.log_sha256) == (outcome.value, 3, "why", 12, "a" * 64)
    assert row.ended_at is not None


def test_a_repeated_report_changes_nothing() -> None:
    lease = running(enlist())
    _do(leases.report, lease, Report(Outcome.SUCCEEDED, 0))
    before = _facts(lease.job_id)
    _do(leases.report, lease, Report(Outcome.FAILED, 1))
    assert _facts(lease.job_id) == before


@pytest.mark.parametrize("outcome", [Outcome.SUCCEEDED, Outcome.FAILED])
def test_an_offer_cannot_have_run(outcome: Outcome) -> None:
    lease = offered(enlist())
    with pytest.raises(Impossible):
        _do(leases.report, lease, Report(outcome))
    assert job_row(lease.job_id).state == "offered"


def test_an_offer_whose_daemon_died_is_made_again() -> None:
    """With `kill -9` between the offer and the shim's first call no task ran, so no task has failed."""
    lease = offered(enlist())
    for _ in range(2):
        _do(leases.report, lease, Report(Outcome.DIED))
        assert job_row(lease.job_id).state == "offered"
    _do(expired_offers.expire_offers, expired_offers.OfferRules(attempts=4, delay=timedelta()))
    assert (job_row(lease.job_id).state, job_row(lease.job_id).ended_at) == ("queued", None)
    with pytest.raises(Superseded):
        _do(leases.accept, lease)


@pytest.mark.parametrize("outcome", [Outcome.UNPREPARED, Outcome.STOPPED])
def test_an_offer_can_end_without_having_run(outcome: Outcome) -> None:
    lease = offered(enlist())
    _do(leases.report, lease, Report(outcome, reason="no such bundle"))
    row = job_row(lease.job_id)
    assert (row.state, row.reason, row.deadline_at) == ("failed", "no such bundle", None)


def test_a_late_report_changes_nothing() -> None:
    lease = running(enlist())
    change_job(lease.job_id, state="lost", ended_at=ago(minutes=1))
    before = _facts(lease.job_id)
    with pytest.raises(TooLate, match="lost"):
        _do(leases.report, lease, Report(Outcome.SUCCEEDED))
    assert _facts(lease.job_id) == before


def test_repeated_late_reports_make_one_audit_entry() -> None:
    lease = running(enlist("edge-1"))
    change_job(lease.job_id, state="lost", ended_at=ago(minutes=1), reason="no contact")
    for _ in range(3):
        _do(leases.note_late, lease, Report(Outcome.FAILED, 3, "it broke", 12, "ab" * 32))
    (entry,) = audit_entries(job_id=lease.job_id)
    assert (entry.kind, entry.worker, entry.job_id, entry.actor, entry.times) == (
        "late-report",
        "edge-1",
        lease.job_id,
        "worker",
        3,
    )
    for found in ("failed, exit code 3", "no contact", "12 bytes", "abab", "it broke"):
        assert found in entry.detail


def test_a_late_report_about_the_job_of_another_worker_is_ignored() -> None:
    lease = running(enlist())
    change_job(lease.job_id, state="lost")
    _do(leases.note_late, WorkerLease("another worker", lease.job_id, lease.epoch), Report(Outcome.SUCCEEDED))
    assert audit_entries("late-report") == []


def test_a_report_that_a_job_died_is_refused_right_after_a_takeover() -> None:
    worker = enlist()
    lease = running(worker)
    listed = [HeldJob(lease.job_id, lease.epoch, JobPhase.ENDED)]
    _do(sessions.open_session, worker.id, session_request(jobs=listed))
    with pytest.raises(RetryLater):
        _do(leases.report, lease, Report(Outcome.DIED))
    assert job_row(lease.job_id).state == "running"
    with compat.transaction() as session:
        session.execute(update(Worker).values(session_at=ago(seconds=6)))
    _do(leases.report, lease, Report(Outcome.DIED))
    assert job_row(lease.job_id).state == "failed"


def test_a_report_of_a_first_start_is_accepted_at_once() -> None:
    lease = running(enlist())
    _do(leases.report, lease, Report(Outcome.DIED))
    assert job_row(lease.job_id).state == "failed"


def test_a_stopped_job_ends_as_revoked() -> None:
    lease = running(enlist())
    change_job(lease.job_id, stop_reason="ended")
    _do(leases.report, lease, Report(Outcome.STOPPED))
    assert job_row(lease.job_id).state == "revoked"


def test_a_job_that_concluded_before_the_stop_reached_it_ends_as_reported() -> None:
    lease = running(enlist())
    _do(leases.conclude, lease, done=True)
    change_job(lease.job_id, stop_reason="revoked")
    _do(leases.report, lease, Report(Outcome.SUCCEEDED))
    assert job_row(lease.job_id).state == "succeeded"


def test_a_conclusion_that_did_not_go_through_is_undone() -> None:
    lease = running(enlist())
    _do(leases.conclude, lease, done=True)
    assert job_row(lease.job_id).concluded_at is not None
    _do(leases.conclude, lease, done=False)
    assert job_row(lease.job_id).concluded_at is None


def test_a_repeated_conclusion_is_recognised_and_keeps_the_first_time() -> None:
    lease = running(enlist())
    assert not _do(leases.conclude, lease, done=True).concluded
    first = job_row(lease.job_id).concluded_at
    repeated = _do(leases.conclude, lease, done=True)
    assert (repeated.concluded, repeated.passed_on) == (True, False)
    assert job_row(lease.job_id).concluded_at == first


@pytest.mark.parametrize(("holder", "passed_on"), [("ours", False), (None, False), ("another job", True), ("nobody", True)])
def test_a_repeated_conclusion_says_whether_the_task_has_moved_on(holder: str | None, passed_on: bool) -> None:
    lease = running(enlist())
    _do(leases.conclude, lease, done=True)
    with compat.transaction() as session:
        task = session.get(TaskInstance, job_row(lease.job_id).ti_id)
        if holder == "nobody":  # the next try has another id
            session.delete(task)
        elif task is not None and holder != "ours":
            task.external_executor_id = holder
    assert _do(leases.conclude, lease, done=True).passed_on is passed_on


# The end of a lease


def test_only_the_same_state_can_be_repeated() -> None:
    lease = running(enlist())
    success, failure = b'{"state": "success"}', b'{"state": "failed"}'
    _do(leases.conclude, lease, done=True, body=success)
    assert _do(leases.conclude, lease, done=True, body=success).concluded
    with pytest.raises(LeaseLapsed, match="another state"):
        _do(leases.conclude, lease, done=True, body=failure)
    _do(leases.conclude, lease, done=False)
    assert not _do(leases.conclude, lease, done=True, body=failure).concluded


def test_a_state_sent_in_time_can_be_repeated_after_the_grace_period() -> None:
    lease = running(enlist())
    with compat.transaction() as session:
        jobs.revoke(session, lease.job_id)
    _do(leases.conclude, lease, done=True, body=b"{}")
    change_job(lease.job_id, stop_decided_at=ago(seconds=settings().stop_grace_seconds + 1))
    assert _do(leases.conclude, lease, done=True, body=b"{}").concluded
