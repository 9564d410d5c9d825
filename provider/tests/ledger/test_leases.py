"""What a worker says of its jobs, fenced by worker, job and epoch."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import update

from testkit.ledger import (  # isort: skip
    TaskInstance,
    ago,
    audited,
    change_job,
    claim,
    enlist,
    job_row,
    offered,
    queued,
    running,
    session_request,
)

from airflow_remote_protocol.messages import HeldJob, JobKind, JobPhase, Outcome, Report, Stop, StopReason
from airflow_remote_provider import compat
from airflow_remote_provider.ledger import expired_offers, fence, jobs, leases, log_places, sessions
from airflow_remote_provider.ledger.errors import Impossible, LeaseLapsed, LedgerError, NotYet, NotYours, Superseded, TooLate
from airflow_remote_provider.ledger.fence import Subject, WorkerLease
from airflow_remote_provider.ledger.log_places import LogPlace
from airflow_remote_provider.models import Worker
from airflow_remote_provider.settings import settings

pytestmark = pytest.mark.usefixtures("database")

DEADLINE = timedelta(seconds=30)


def _do(verb: object, *args: object, **kwargs: object) -> object:
    with compat.transaction() as session:
        return verb(session, *args, **kwargs)  # type: ignore[operator]


def _renew(worker_id: str, *held: HeldJob) -> list[Stop]:
    with compat.transaction() as session:
        return leases.renew(session, worker_id, held, deadline=DEADLINE)


def _reoffered(worker: object, lease: WorkerLease) -> WorkerLease:
    """Let the offer lapse and be made again, to the same worker."""
    _do(leases.withdraw, [lease])
    (again,) = claim(worker.claimant())  # type: ignore[attr-defined]
    return WorkerLease(lease.worker_id, again.job_id, again.epoch)


# Fences

VERBS = {
    "accept": lambda session, lease: leases.accept(session, lease),
    "decline": lambda session, lease: leases.decline(session, lease, "no", delay=DEADLINE),
    "report": lambda session, lease: leases.report(session, lease, Report(Outcome.SUCCEEDED)),
    "conclude": lambda session, lease: leases.conclude(session, lease, done=True),
    "check": lambda session, lease: fence.check(session, lease),
    "log_place": lambda session, lease: log_places.log_place(session, lease),
    "begin_log": lambda session, lease: log_places.begin_log(session, lease, 7),
}


def _facts(job_id: str) -> dict[str, object]:
    row = job_row(job_id)
    return {column.name: getattr(row, column.name) for column in row.__table__.columns}


@pytest.mark.parametrize("verb", VERBS)
def test_an_older_epoch_is_superseded_and_changes_nothing(verb: str) -> None:
    worker = enlist()
    old = offered(worker)
    new = _reoffered(worker, old)
    _do(leases.accept, new)
    before = _facts(new.job_id)
    with pytest.raises(Superseded):
        _do(VERBS[verb], old)
    assert _facts(new.job_id) == before


@pytest.mark.parametrize("verb", VERBS)
def test_an_epoch_of_the_future_is_superseded(verb: str) -> None:
    lease = running(enlist())
    with pytest.raises(Superseded):
        _do(VERBS[verb], WorkerLease(lease.worker_id, lease.job_id, lease.epoch + 1))


@pytest.mark.parametrize("verb", VERBS)
def test_another_workers_job_is_as_unknown_as_none(verb: str) -> None:
    lease = running(enlist("mine"))
    other = enlist("other")
    before = _facts(lease.job_id)
    with pytest.raises(NotYours):
        _do(VERBS[verb], WorkerLease(other.id, lease.job_id, lease.epoch))
    with pytest.raises(NotYours):
        _do(VERBS[verb], WorkerLease(other.id, "no such job", 1))
    assert _facts(lease.job_id) == before


@pytest.mark.parametrize("verb", VERBS)
def test_a_lease_that_went_back_to_the_queue_is_superseded(verb: str) -> None:
    lease = offered(enlist())
    _do(leases.withdraw, [lease])
    with pytest.raises(Superseded):
        _do(VERBS[verb], lease)
    assert job_row(lease.job_id).state == "queued"


@pytest.mark.parametrize("verb", ["accept", "decline", "conclude", "check"])
def test_an_ended_job_is_superseded(verb: str) -> None:
    lease = running(enlist())
    _do(leases.report, lease, Report(Outcome.SUCCEEDED))
    with pytest.raises(Superseded, match="has ended"):
        _do(VERBS[verb], lease)


# Accept, decline, withdraw


def test_acceptance_again_changes_nothing() -> None:
    lease = offered(enlist())
    subject = _do(leases.accept, lease)
    before = _facts(lease.job_id)
    assert (before["state"], before["deadline_at"]) == ("running", None)
    assert _do(leases.accept, lease) == subject == Subject(JobKind.TASK, before["ti_id"], "dag", "run", "task", -1)
    assert _facts(lease.job_id) == before


def test_a_declined_offer_waits_and_costs_nothing() -> None:
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


def test_withdrawn_offers_are_queued_at_once_at_no_cost() -> None:
    worker = enlist()
    lease = offered(worker)
    _do(leases.withdraw, [lease])
    row = job_row(lease.job_id)
    assert (row.state, row.offers, row.deadline_at, row.not_before) == ("queued", 0, None, None)
    assert len(claim(worker.claimant())) == 1


def test_only_what_is_still_that_offer_is_withdrawn() -> None:
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
def test_listing_otherwise_does_not(phase: JobPhase) -> None:
    worker = enlist()
    lease = offered(worker)
    change_job(lease.job_id, deadline_at=ago(seconds=-1))
    _renew(worker.id, HeldJob(lease.job_id, lease.epoch, phase))
    deadline = job_row(lease.job_id).deadline_at
    assert deadline is not None and deadline < ago(seconds=-20)


def test_nobody_renews_another_workers_offer() -> None:
    mine, other = enlist("mine"), enlist("other")
    lease = offered(mine)
    change_job(lease.job_id, deadline_at=ago(seconds=-1))
    (stop,) = _renew(other.id, HeldJob(lease.job_id, lease.epoch, JobPhase.PREPARING))
    assert stop.reason is StopReason.SUPERSEDED
    deadline = job_row(lease.job_id).deadline_at
    assert deadline is not None and deadline < ago(seconds=-20)


def test_what_is_not_ours_any_more_comes_back_as_superseded() -> None:
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


def test_a_lost_job_is_to_be_stopped_but_its_log_is_wanted() -> None:
    worker = enlist()
    lease = running(worker)
    change_job(lease.job_id, state="lost")
    told = {phase: _renew(worker.id, HeldJob(lease.job_id, lease.epoch, phase)) for phase in JobPhase}
    assert {phase: [stop.reason for stop in stops] for phase, stops in told.items()} == {
        JobPhase.PREPARING: [StopReason.LOST],
        JobPhase.RUNNING: [StopReason.LOST],
        JobPhase.STOPPING: [],
        JobPhase.ENDED: [],
    }
    assert _do(log_places.log_place, lease)


def test_a_job_that_is_listed_again_is_not_missing_any_more() -> None:
    worker = enlist()
    lease = running(worker)
    _do(leases.reconcile, worker.id, [])
    assert _renew(worker.id, HeldJob(lease.job_id, lease.epoch, JobPhase.RUNNING)) == []
    assert job_row(lease.job_id).missing_since is None


def test_a_stop_is_told_until_the_worker_says_that_it_stops() -> None:
    worker = enlist()
    lease = running(worker)
    _do(jobs.revoke, lease.job_id)
    told = {phase: _renew(worker.id, HeldJob(lease.job_id, lease.epoch, phase)) for phase in JobPhase}
    assert {phase: [stop.reason.value for stop in stops] for phase, stops in told.items()} == {
        JobPhase.PREPARING: ["revoked"],
        JobPhase.RUNNING: ["revoked"],
        JobPhase.STOPPING: [],
        JobPhase.ENDED: [],
    }


def test_a_poll_that_lists_nothing_asks_for_nothing() -> None:
    assert _renew(enlist().id) == []


# Stops


def test_an_offer_taken_back_is_told_for_some_minutes_only() -> None:
    worker = enlist()
    lease = offered(worker)
    _do(jobs.revoke, lease.job_id)
    assert len(leases_of(worker.id)) == 1
    change_job(lease.job_id, ended_at=ago(minutes=6))
    assert leases_of(worker.id) == []


def test_a_running_job_is_told_to_stop_for_as_long_as_it_runs() -> None:
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


def test_an_offer_that_a_new_session_does_not_list_is_queued_again_at_no_cost() -> None:
    worker = enlist()
    lease = offered(worker)
    _do(leases.reconcile, worker.id, [])
    row = job_row(lease.job_id)
    assert (row.state, row.offers) == ("queued", 0)


def test_a_running_job_that_it_does_not_list_is_missing() -> None:
    worker = enlist()
    lease = running(worker)
    _do(leases.reconcile, worker.id, [])
    row = job_row(lease.job_id)
    assert row.state == "running" and row.missing_since is not None
    _do(leases.reconcile, worker.id, [])
    assert job_row(lease.job_id).missing_since == row.missing_since, "since the first session that did not list it"
    _do(leases.reconcile, worker.id, [HeldJob(lease.job_id, lease.epoch, JobPhase.RUNNING)])
    assert job_row(lease.job_id).missing_since is None


def test_what_it_lists_stays() -> None:
    worker = enlist()
    first, second = running(worker), offered(worker)
    held = [HeldJob(lease.job_id, lease.epoch, JobPhase.RUNNING) for lease in (first, second)]
    _do(leases.reconcile, worker.id, held)
    assert (job_row(first.job_id).state, job_row(second.job_id).state) == ("running", "offered")


def test_a_job_listed_at_another_epoch_is_not_the_one_we_mean() -> None:
    worker = enlist()
    lease = running(worker)
    _do(leases.reconcile, worker.id, [HeldJob(lease.job_id, lease.epoch + 1, JobPhase.RUNNING)])
    assert job_row(lease.job_id).missing_since is not None


def test_other_workers_jobs_stay() -> None:
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


def test_a_report_again_changes_nothing() -> None:
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


def test_an_offer_that_died_with_its_daemon_is_made_again() -> None:
    """`kill -9` between the offer and the shim's first call: no task ran, so none has failed."""
    lease = offered(enlist())
    for _ in range(2):
        _do(leases.report, lease, Report(Outcome.DIED))
        assert job_row(lease.job_id).state == "offered"
    _do(expired_offers.expire_offers, expired_offers.OfferRules(attempts=4, delay=timedelta()))
    assert (job_row(lease.job_id).state, job_row(lease.job_id).ended_at) == ("queued", None)
    with pytest.raises(Superseded):
        _do(leases.accept, lease)


@pytest.mark.parametrize("outcome", [Outcome.UNPREPARED, Outcome.STOPPED])
def test_an_offer_may_end_without_having_run(outcome: Outcome) -> None:
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


def test_a_late_report_is_noted_once_however_often_it_comes() -> None:
    lease = running(enlist("edge-1"))
    change_job(lease.job_id, state="lost", ended_at=ago(minutes=1), reason="not heard of")
    for _ in range(3):
        _do(leases.note_late, lease, Report(Outcome.FAILED, 3, "it broke", 12, "ab" * 32))
    (entry,) = audited(job_id=lease.job_id)
    assert (entry.kind, entry.worker, entry.job_id, entry.actor, entry.times) == (
        "late-report",
        "edge-1",
        lease.job_id,
        "worker",
        3,
    )
    for told in ("failed, exit code 3", "not heard of", "12 bytes", "abab", "it broke"):
        assert told in entry.detail


def test_nobody_notes_a_report_about_another_workers_job() -> None:
    lease = running(enlist())
    change_job(lease.job_id, state="lost")
    _do(leases.note_late, WorkerLease("somebody else", lease.job_id, lease.epoch), Report(Outcome.SUCCEEDED))
    assert audited("late-report") == []


def test_that_a_job_died_is_not_believed_right_after_a_takeover() -> None:
    worker = enlist()
    lease = running(worker)
    listed = [HeldJob(lease.job_id, lease.epoch, JobPhase.ENDED)]
    _do(sessions.open_session, worker.id, session_request(jobs=listed))
    with pytest.raises(NotYet):
        _do(leases.report, lease, Report(Outcome.DIED))
    assert job_row(lease.job_id).state == "running"
    with compat.transaction() as session:
        session.execute(update(Worker).values(session_at=ago(seconds=6)))
    _do(leases.report, lease, Report(Outcome.DIED))
    assert job_row(lease.job_id).state == "failed"


def test_a_first_start_is_believed_at_once() -> None:
    lease = running(enlist())
    _do(leases.report, lease, Report(Outcome.DIED))
    assert job_row(lease.job_id).state == "failed"


def test_a_job_that_was_told_to_stop_ends_as_revoked() -> None:
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


def test_a_conclusion_that_did_not_go_through_is_taken_back() -> None:
    lease = running(enlist())
    _do(leases.conclude, lease, done=True)
    assert job_row(lease.job_id).concluded_at is not None
    _do(leases.conclude, lease, done=False)
    assert job_row(lease.job_id).concluded_at is None


def test_a_repeated_conclusion_says_so_and_keeps_the_time_of_the_first() -> None:
    lease = running(enlist())
    assert not _do(leases.conclude, lease, done=True).concluded
    first = job_row(lease.job_id).concluded_at
    repeated = _do(leases.conclude, lease, done=True)
    assert (repeated.concluded, repeated.passed_on) == (True, False)
    assert job_row(lease.job_id).concluded_at == first


@pytest.mark.parametrize(("holder", "passed_on"), [("ours", False), (None, False), ("another job", True), ("nobody", True)])
def test_a_repeated_conclusion_knows_whether_the_task_has_moved_on(holder: str | None, passed_on: bool) -> None:
    lease = running(enlist())
    _do(leases.conclude, lease, done=True)
    with compat.transaction() as session:
        task = session.get(TaskInstance, job_row(lease.job_id).ti_id)
        if holder == "nobody":  # the next try has another id
            session.delete(task)
        elif task is not None and holder != "ours":
            task.external_executor_id = holder
    assert _do(leases.conclude, lease, done=True).passed_on is passed_on


def test_a_job_that_was_taken_back_says_so_unless_it_had_concluded() -> None:
    lease = running(enlist())
    assert not _do(fence.check, lease).taken_back
    change_job(lease.job_id, stop_reason="cleared")
    assert _do(fence.check, lease).taken_back
    assert _do(leases.conclude, lease, done=True).taken_back
    assert not _do(leases.conclude, lease, done=True).taken_back


# The end of a lease


@pytest.mark.parametrize("verb", ["check", "accept"])
def test_once_its_task_has_ended_a_lease_allows_no_more_calls(verb: str) -> None:
    lease = running(enlist())
    _do(leases.conclude, lease, done=True)
    with pytest.raises(LeaseLapsed, match=lease.job_id):
        _do(VERBS[verb], lease)
    _do(log_places.begin_log, lease, 0)
    _do(leases.report, lease, Report(Outcome.SUCCEEDED))


def test_a_state_that_did_not_go_through_ends_nothing() -> None:
    lease = running(enlist())
    _do(leases.conclude, lease, done=True)
    _do(leases.conclude, lease, done=False)
    _do(fence.check, lease)


def test_only_the_same_state_may_be_repeated() -> None:
    lease = running(enlist())
    success, failure = b'{"state": "success"}', b'{"state": "failed"}'
    _do(leases.conclude, lease, done=True, body=success)
    assert _do(leases.conclude, lease, done=True, body=success).concluded
    with pytest.raises(LeaseLapsed, match="another state"):
        _do(leases.conclude, lease, done=True, body=failure)
    _do(leases.conclude, lease, done=False)
    assert not _do(leases.conclude, lease, done=True, body=failure).concluded


def test_a_stop_gives_the_task_its_grace_to_wind_down_and_no_more() -> None:
    lease = running(enlist())
    with compat.transaction() as session:
        jobs.revoke(session, lease.job_id)
    assert _do(fence.check, lease).taken_back
    change_job(lease.job_id, stop_decided_at=ago(seconds=settings().stop_grace_seconds + 1))
    for verb in ("check", "accept", "conclude"):
        with pytest.raises(LeaseLapsed, match="stop_grace_seconds"):
            _do(VERBS[verb], lease)
    _do(log_places.begin_log, lease, 0)
    _do(leases.report, lease, Report(Outcome.STOPPED))


def test_the_state_that_came_in_time_may_be_repeated_after_the_grace() -> None:
    lease = running(enlist())
    with compat.transaction() as session:
        jobs.revoke(session, lease.job_id)
    _do(leases.conclude, lease, done=True, body=b"{}")
    change_job(lease.job_id, stop_decided_at=ago(seconds=settings().stop_grace_seconds + 1))
    assert _do(leases.conclude, lease, done=True, body=b"{}").concluded


# Logs


def _resumed(lease: WorkerLease) -> WorkerLease:
    """Let the task's first job conclude as deferred, and a second one of the same try begin on another worker."""
    first = job_row(lease.job_id)
    _do(leases.conclude, lease, done=True)
    worker = enlist("another")
    job = queued(with_task=False, ti_id=first.ti_id, log_path=first.log_path)
    (claimed,) = claim(worker.claimant())
    assert claimed.job_id == job.job_id
    second = worker.lease(claimed)
    _do(leases.accept, second)
    return second


def test_a_log_path_belongs_to_the_newest_job_that_was_accepted() -> None:
    first = running(enlist())
    path = job_row(first.job_id).log_path
    _do(log_places.begin_log, first, 10)
    second = _resumed(first)
    assert _do(log_places.log_place, first).path is None, "how much of it is in the file is not known yet"
    assert _do(log_places.log_place, second) == LogPlace(path, None, path)
    _do(log_places.begin_log, second, 25)
    assert _do(log_places.log_place, second) == LogPlace(path, 25, path)
    assert _do(log_places.log_place, first) == LogPlace(f"{path}.{first.job_id}.{first.epoch}.log", -15, path)


def test_what_an_older_job_still_sends_first_fixes_where_its_part_ends() -> None:
    first = running(enlist())
    path = job_row(first.job_id).log_path
    _do(log_places.begin_log, first, 10)
    second = _resumed(first)
    _do(log_places.end_log, first, 25)
    _do(log_places.end_log, first, 70)
    _do(log_places.begin_log, second, 25)
    assert _do(log_places.log_place, first) == LogPlace(f"{path}.{first.job_id}.{first.epoch}.log", -15, path)


def test_an_older_job_that_logs_only_after_it_was_followed_takes_nothing() -> None:
    first = running(enlist())
    path = job_row(first.job_id).log_path
    second = _resumed(first)
    beside = LogPlace(f"{path}.{first.job_id}.{first.epoch}.log", 0, path)
    assert _do(log_places.log_place, first) == beside
    _do(log_places.begin_log, first, 3)
    assert _do(log_places.log_place, first) == beside
    assert _do(log_places.log_place, second) == LogPlace(path, None, path)


def test_a_job_that_is_over_before_it_was_accepted_takes_no_log_from_the_next() -> None:
    first = offered(enlist())
    path = job_row(first.job_id).log_path
    change_job(first.job_id, state="failed")
    worker = enlist("another")
    queued(with_task=False, ti_id=job_row(first.job_id).ti_id, log_path=path)
    second = worker.lease(claim(worker.claimant())[0])
    _do(leases.accept, second)
    _do(log_places.begin_log, first, 0)
    assert _do(log_places.log_place, first).path == f"{path}.{first.job_id}.{first.epoch}.log"
    assert _do(log_places.log_place, second).path == path


def test_the_first_byte_fixes_where_a_log_begins() -> None:
    lease = running(enlist())
    assert _do(log_places.log_place, lease).base is None  # type: ignore[attr-defined]
    assert _do(log_places.begin_log, lease, 100) == 100
    assert _do(log_places.begin_log, lease, 250) == 100, "a second writer hears of the first"
    assert _do(log_places.log_place, lease).base == 100  # type: ignore[attr-defined]


def test_a_new_lease_begins_its_own_part() -> None:
    worker = enlist()
    lease = offered(worker)
    _do(log_places.begin_log, lease, 0)
    again = _reoffered(worker, lease)
    assert _do(log_places.log_place, again).base is None  # type: ignore[attr-defined]
    assert _do(log_places.begin_log, again, 40) == 40


def test_a_log_may_come_after_the_job_has_ended() -> None:
    lease = running(enlist())
    change_job(lease.job_id, state="lost")
    assert _do(log_places.log_place, lease).path == job_row(lease.job_id).log_path  # type: ignore[attr-defined]
    assert _do(log_places.begin_log, lease, 5) == 5


def test_every_refusal_is_a_sentence_for_people() -> None:
    lease = running(enlist())
    with pytest.raises(LedgerError) as refused:
        _do(leases.accept, WorkerLease(lease.worker_id, lease.job_id, 9))
    assert lease.job_id in str(refused.value) and "epoch 9" in str(refused.value)


def test_a_hostile_job_id_is_cut_in_the_answer() -> None:
    worker = enlist()
    with pytest.raises(NotYours) as refused:
        _do(leases.accept, WorkerLease(worker.id, "x" * 100_000, 1))
    assert len(str(refused.value)) < 200
    assert queued().job_id
