"""Waits: stored, queued as triggers, ended once, taken back, moved to another worker; and never decoded."""

from __future__ import annotations

import json
import uuid
from datetime import datetime, timedelta, timezone
from typing import Any

import msgspec
import pytest
from sqlalchemy import select, update

from testkit.ledger import (  # isort: skip
    Enlisted,
    TaskInstance,
    Trigger,
    ago,
    change_job,
    change_task,
    claim,
    enlist,
    job_row,
    set_last_seen,
    running,
)

from airflow_remote_protocol.codec import decode
from airflow_remote_protocol.messages import EventKind, JobKind, Outcome, Report, StopReason, TriggerEvent, TriggerWorkload
from airflow_remote_provider import compat
from airflow_remote_provider.definitions.grants import GrantKind
from airflow_remote_provider.ledger import deferrals, ended_tasks, expired_offers, jobs, leases, lost_jobs, queue_policy, queues
from airflow_remote_provider.ledger.deferrals import MOST_HOST_DEATHS, NewWait, Resumption
from airflow_remote_provider.ledger.errors import Impossible, NoSuchJob, Superseded
from airflow_remote_provider.ledger.expired_offers import OfferRules
from airflow_remote_provider.ledger.fence import WorkerLease
from airflow_remote_provider.models import Deferral, Job
from airflow_remote_provider.placeholder_names import FAIL, ON_CENTRAL, PLACEHOLDER, TRIGGER_QUEUE

pytestmark = pytest.mark.usefixtures("database")

WORKLOAD = json.dumps({"ti": {"id": "ti"}, "dag_rel_path": "dag.py", "bundle": {"name": "b", "version": None}})
KWARGS = '{"path":{"__classname__":"os.system","__data__":"rm -rf /"}}'
WAIT = NewWait("resume", '{"kept":"before"}', KWARGS, "site.Trigger")
FIRED = TriggerEvent(EventKind.FIRED, msgspec.Raw(b'{"at":1}'))
FAILED = TriggerEvent(EventKind.FAILED, traceback=["Traceback", "ValueError: no"])


@pytest.fixture
def host() -> Enlisted:
    """Return a worker that hosts at most two triggers and has no slot."""
    return enlist("host", slots=0, capabilities=["task", "trigger"], triggers=2)


def _defer(lease: WorkerLease, wait: NewWait = WAIT, *, queue: str | None = TRIGGER_QUEUE) -> uuid.UUID:
    """Let the task of a running job defer, with the effects that the gateway and Airflow have together."""
    with compat.transaction() as session:
        subject = leases.conclude(session, lease, done=True)
        deferrals.note(session, lease.job_id, wait)
    with compat.transaction() as session:
        trigger = Trigger(queue=queue, created_date=datetime.now(timezone.utc), classpath=PLACEHOLDER)
        session.add(trigger)
        session.flush()
        waiting = update(TaskInstance).where(TaskInstance.id == subject.id)
        session.execute(waiting.values(state="deferred", trigger_id=trigger.id))
    with compat.transaction() as session:
        deferrals.queue_trigger(session, lease.job_id)
    return subject.id


def _trigger_jobs() -> list[Job]:
    with compat.transaction() as session:
        return list(session.scalars(select(Job).where(Job.kind == JobKind.TRIGGER.value).order_by(Job.queued_at)))


def _hosted(host: Enlisted) -> WorkerLease:
    """Offer the one waiting trigger to *host*, and accept it."""
    (claimed,) = claim(host.claimant(0, triggers=1))
    lease = host.lease(claimed)
    with compat.transaction() as session:
        assert leases.accept(session, lease).kind is JobKind.TRIGGER
    return lease


def _fire(lease: WorkerLease, event: TriggerEvent = FIRED) -> None:
    with compat.transaction() as session:
        leases.fire(session, lease, event)


def _task(ti_id: uuid.UUID) -> TaskInstance:
    with compat.transaction() as session:
        task = session.get(TaskInstance, ti_id)
    assert task is not None
    return task


def _resumption(ti_id: uuid.UUID) -> Resumption | None:
    with compat.transaction() as session:
        return deferrals.resumption(session, ti_id)


@pytest.fixture
def deferring() -> WorkerLease:
    return running(enlist("runner", capabilities=["task"]), workload=WORKLOAD, bundle="b")


def test_a_deferred_task_s_trigger_is_a_job_that_takes_no_slot(deferring: WorkerLease) -> None:
    ti_id = _defer(deferring)
    (job,) = _trigger_jobs()
    task_job = job_row(deferring.job_id)
    assert (job.state, job.slots, job.queue, job.owner, job.labels, job.bundle) == ("queued", 0, "q", "", task_job.labels, "b")
    assert (job.ti_id, job.task_id, job.log_path) == (ti_id, "task", f"{task_job.log_path}.trigger.{job.id}.log")
    workload = decode(TriggerWorkload, job.workload.encode())
    assert (workload.classpath, bytes(workload.kwargs).decode()) == ("site.Trigger", KWARGS), "as the worker sent it, encoded"


def test_a_repeated_deferral_queues_nothing_more(deferring: WorkerLease) -> None:
    _defer(deferring)
    with compat.transaction() as session:
        deferrals.queue_trigger(session, deferring.job_id)
    assert len(_trigger_jobs()) == 1


@pytest.mark.parametrize("wait", [NewWait("resume", "{}"), NewWait("resume", "{}", "{}", None)])
def test_a_wait_that_central_or_a_user_ends_queues_no_trigger(deferring: WorkerLease, wait: NewWait) -> None:
    ti_id = _defer(deferring, wait, queue=None)
    assert _trigger_jobs() == []
    assert _resumption(ti_id) == Resumption("resume", "{}", None)


def test_a_task_that_was_cleared_before_its_trigger_was_queued_gets_no_trigger(deferring: WorkerLease) -> None:
    with compat.transaction() as session:
        deferrals.note(session, deferring.job_id, WAIT)
    with compat.transaction() as session:
        deferrals.queue_trigger(session, deferring.job_id)
    assert _trigger_jobs() == []


def test_only_a_worker_with_the_capability_and_room_is_offered_a_trigger(deferring: WorkerLease, host: Enlisted) -> None:
    _defer(deferring)
    unable = enlist("unable", capabilities=["task"], triggers=5)
    full = enlist("full", capabilities=["task", "trigger"], triggers=0)
    assert claim(unable.claimant(4, triggers=5), full.claimant(4, triggers=5), host.claimant(4, triggers=0)) == []
    (claimed,) = claim(host.claimant(0, triggers=5))
    assert claimed.worker_id == host.id


def test_a_worker_is_never_offered_more_triggers_than_its_session_allows(host: Enlisted) -> None:
    runner = enlist("runner", slots=5)
    for _ in range(4):
        _defer(running(runner, workload=WORKLOAD))
    assert len(claim(host.claimant(0, triggers=10))) == 2
    assert claim(host.claimant(0, triggers=10)) == []


def test_triggers_and_tasks_do_not_take_each_other_s_room(deferring: WorkerLease) -> None:
    both = enlist("both", slots=1, capabilities=["task", "trigger"], triggers=1)
    _defer(deferring)
    running(both)
    (claimed,) = claim(both.claimant(0, triggers=1))
    assert claimed.kind == JobKind.TRIGGER.value


def test_an_event_resumes_the_task_with_its_stored_arguments(deferring: WorkerLease, host: Enlisted) -> None:
    ti_id = _defer(deferring)
    lease = _hosted(host)
    _fire(lease)
    assert (_task(ti_id).state, _task(ti_id).trigger_id) == ("scheduled", None)
    assert _resumption(ti_id) == Resumption("resume", '{"kept":"before"}', '{"at":1}')
    job = job_row(lease.job_id)
    assert (job.state, job.outcome, job.settled_at is not None) == ("succeeded", "succeeded", True)


def test_a_repeated_event_changes_nothing(deferring: WorkerLease, host: Enlisted) -> None:
    ti_id = _defer(deferring)
    lease = _hosted(host)
    _fire(lease)
    change_task(ti_id, state="running")
    _fire(lease, TriggerEvent(EventKind.FIRED, msgspec.Raw(b'"another"')))
    assert _task(ti_id).state == "running"
    assert _resumption(ti_id) == Resumption("resume", '{"kept":"before"}', '{"at":1}')


def test_a_trigger_that_failed_fails_its_task_with_its_traceback(deferring: WorkerLease, host: Enlisted) -> None:
    ti_id = _defer(deferring)
    lease = _hosted(host)
    _fire(lease, FAILED)
    resumed = _resumption(ti_id)
    assert resumed is not None and resumed.next_method == FAIL
    assert json.loads(resumed.next_kwargs) == {"error": "Trigger failure", "traceback": FAILED.traceback}
    assert (job_row(lease.job_id).state, job_row(lease.job_id).reason) == ("failed", "ValueError: no")


def test_an_event_before_acceptance_or_of_a_task_is_refused(deferring: WorkerLease, host: Enlisted) -> None:
    _defer(deferring)
    (claimed,) = claim(host.claimant(0, triggers=1))
    with pytest.raises(Impossible, match="accept it"):
        _fire(host.lease(claimed))
    with pytest.raises(Impossible, match="only a trigger"):
        _fire(running(enlist("third", ["other"]), "other"))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"state": "failed"}, StopReason.ENDED),
        ({"state": "success"}, StopReason.ENDED),
        ({"state": None, "trigger_id": None}, StopReason.CLEARED),
        ({"state": "scheduled", "trigger_id": None}, StopReason.RESUMED),
        ({"state": "running", "trigger_id": None}, StopReason.RESUMED),
        ({"trigger_id": 4711}, StopReason.RESUMED),
        ({"state": "failed", "trigger_id": None, "external_executor_id": "its next job's"}, StopReason.RESUMED),
    ],
)
def test_a_trigger_whose_task_no_longer_waits_is_taken_back(
    deferring: WorkerLease, host: Enlisted, changes: dict[str, Any], reason: StopReason
) -> None:
    ti_id = _defer(deferring)
    lease = _hosted(host)
    with compat.transaction() as session:
        assert ended_tasks.stop_ended(session) == 0
    change_task(ti_id, **changes)
    with compat.transaction() as session:
        assert ended_tasks.stop_ended(session) == 1
    job = job_row(lease.job_id)
    assert (job.state, job.stop_reason) == ("revoked", reason.value)
    with pytest.raises(Superseded):
        _fire(lease)
    with compat.transaction() as session:
        (stop,) = leases.stops_for(session, [host.id])[host.id]
    assert (stop.job_id, stop.reason) == (lease.job_id, reason)


def test_an_event_after_the_task_was_resumed_is_refused(deferring: WorkerLease, host: Enlisted) -> None:
    ti_id = _defer(deferring)
    lease = _hosted(host)
    change_task(ti_id, state="scheduled", trigger_id=None)  # its wait has timed out, which no check has noticed yet
    with pytest.raises(Superseded):
        _fire(lease)
    assert _resumption(ti_id) is None, "Airflow's own reason is kept"


def test_a_task_whose_wait_timed_out_gets_airflow_s_reason(deferring: WorkerLease) -> None:
    ti_id = _defer(deferring)
    assert _resumption(ti_id) is None


def test_a_trigger_handed_back_by_a_drained_worker_loses_no_attempt(deferring: WorkerLease, host: Enlisted) -> None:
    ti_id = _defer(deferring)
    for _ in range(2 * MOST_HOST_DEATHS):
        lease = _hosted(host)
        with compat.transaction() as session:
            leases.decline(session, lease, "this worker drains", delay=timedelta(seconds=5))
        job = job_row(lease.job_id)
        assert (job.state, job.offers) == ("queued", 0)
        change_job(lease.job_id, not_before=None)
    assert _task(ti_id).state == "deferred"
    with pytest.raises(Superseded):
        _fire(lease)


@pytest.mark.parametrize("reason", ["not now", f"{leases.HOST_DIED}killed by signal 9"])
def test_a_trigger_that_its_worker_declines_is_not_offered_again_at_once(
    deferring: WorkerLease, host: Enlisted, reason: str
) -> None:
    """A worker that declines every job that it has accepted must not keep central busy."""
    _defer(deferring)
    lease = _hosted(host)
    with compat.transaction() as session:
        leases.decline(session, lease, reason, delay=timedelta(seconds=5))
    assert claim(host.claimant(0, triggers=1)) == []
    change_job(lease.job_id, not_before=ago(seconds=1))
    assert [job.job_id for job in claim(host.claimant(0, triggers=1))] == [lease.job_id]


def test_a_trigger_that_its_worker_reports_as_stopped_is_not_offered_again_at_once(
    deferring: WorkerLease, host: Enlisted
) -> None:
    _defer(deferring)
    lease = _hosted(host)
    with compat.transaction() as session:
        leases.report(session, lease, Report(Outcome.STOPPED, reason="by itself"))
    assert job_row(lease.job_id).state == "queued"
    assert claim(host.claimant(0, triggers=1)) == []


def test_a_trigger_under_which_hosts_keep_dying_fails_its_task(deferring: WorkerLease, host: Enlisted) -> None:
    ti_id = _defer(deferring)
    for _ in range(MOST_HOST_DEATHS):
        lease = _hosted(host)
        with compat.transaction() as session:
            leases.decline(session, lease, f"{leases.HOST_DIED}killed by signal 9", delay=timedelta(seconds=5))
        change_job(lease.job_id, not_before=None)
    assert job_row(lease.job_id).state == "failed"
    resumed = _resumption(ti_id)
    assert resumed is not None and "has ended 3 times" in resumed.next_kwargs and "killed by signal 9" in resumed.next_kwargs


def test_the_trigger_of_a_lost_worker_goes_to_another(deferring: WorkerLease, host: Enlisted) -> None:
    ti_id = _defer(deferring)
    lost = _hosted(host)
    change_job(lost.job_id, accepted_at=ago(hours=9))
    set_last_seen(host.id, ago(hours=8))
    with compat.transaction() as session:
        assert lost_jobs.lose_silent(session) == 1
    assert (job_row(lost.job_id).state, _task(ti_id).state) == ("queued", "deferred")
    other = enlist("other", slots=0, capabilities=["trigger"], triggers=1)
    (claimed,) = claim(other.claimant(0, triggers=1))
    with compat.transaction() as session:
        leases.accept(session, other.lease(claimed))
    with pytest.raises(NoSuchJob):
        _fire(lost)
    _fire(other.lease(claimed))
    assert _task(ti_id).state == "scheduled"


def test_a_trigger_that_its_worker_s_new_session_does_not_list_goes_back_to_the_queue(
    deferring: WorkerLease, host: Enlisted
) -> None:
    _defer(deferring)
    lease = _hosted(host)
    change_job(lease.job_id, missing_since=ago(minutes=1))
    with compat.transaction() as session:
        assert lost_jobs.lose_missing(session, grace=timedelta(seconds=15)) == 1
    assert job_row(lease.job_id).state == "queued"


def test_a_trigger_that_can_t_be_prepared_fails_its_task_with_the_reason(deferring: WorkerLease, host: Enlisted) -> None:
    ti_id = _defer(deferring)
    lease = _hosted(host)
    said = Report(Outcome.UNPREPARED, reason="no bundle 'b'")
    with compat.transaction() as session:
        leases.report(session, lease, said)
    with compat.transaction() as session:
        leases.report(session, lease, said)
    resumed = _resumption(ti_id)
    assert resumed is not None and "no bundle 'b'" in resumed.next_kwargs and _task(ti_id).state == "scheduled"


def test_a_trigger_is_never_reported_as_ended_by_itself(deferring: WorkerLease, host: Enlisted) -> None:
    _defer(deferring)
    lease = _hosted(host)
    with pytest.raises(Impossible, match="ends by its event"), compat.transaction() as session:
        leases.report(session, lease, Report(Outcome.SUCCEEDED))


def test_a_trigger_that_no_worker_accepts_fails_its_task_in_the_end(deferring: WorkerLease, host: Enlisted) -> None:
    ti_id = _defer(deferring)
    for _ in range(3):
        (claimed,) = claim(host.claimant(0, triggers=1))
        change_job(claimed.job_id, deadline_at=ago(seconds=1))
        with compat.transaction() as session:
            expired_offers.expire_offers(session, OfferRules(3, timedelta(0)))
        change_job(claimed.job_id, not_before=None)
    resumed = _resumption(ti_id)
    assert resumed is not None and "never accepted" in resumed.next_kwargs and _task(ti_id).state == "scheduled"


def test_a_wait_left_incomplete_by_a_dead_api_process_is_repaired(deferring: WorkerLease) -> None:
    ti_id = _defer(deferring)
    with compat.transaction() as session:
        session.execute(update(Deferral).values(job_id=None, trigger_id=None, deferred_at=ago(minutes=1)))
        session.execute(update(Job).where(Job.kind == JobKind.TRIGGER.value).values(state="revoked"))
    with compat.transaction() as session:
        assert deferrals.repair(session) == 1
    assert [job.state for job in _trigger_jobs()].count("queued") == 1
    assert _task(ti_id).state == "deferred"


def test_a_lease_for_the_trigger_does_not_change_what_the_task_waits_for(deferring: WorkerLease, host: Enlisted) -> None:
    ti_id = _defer(deferring)
    lease = _hosted(host)
    with compat.transaction() as session:
        deferrals.note(session, lease.job_id, NewWait("forged", "{}", "{}", "forged.Trigger"))
    _fire(lease)
    assert _resumption(ti_id) == Resumption("resume", WAIT.next_kwargs, '{"at":1}')


def test_an_offer_that_was_not_accepted_stores_no_wait() -> None:
    worker = enlist("runner", capabilities=["task"])
    lease = running(worker, workload=WORKLOAD, bundle="b")
    change_job(lease.job_id, state="offered")
    with compat.transaction() as session:
        deferrals.note(session, lease.job_id, WAIT)
        assert session.scalar(select(Deferral)) is None


def test_a_task_whose_trigger_was_stopped_by_a_user_fails_with_the_reason(deferring: WorkerLease, host: Enlisted) -> None:
    ti_id = _defer(deferring)
    lease = _hosted(host)
    with compat.transaction() as session:
        jobs.stop(session, lease.job_id, by="ada", reason="it never comes")
    with compat.transaction() as session:
        assert deferrals.repair(session) == 1
    assert _task(ti_id).state == "scheduled"
    resumption = _resumption(ti_id)
    assert resumption is not None and "stopped by ada: it never comes" in resumption.next_kwargs
    with compat.transaction() as session:
        assert deferrals.repair(session) == 0


def test_a_task_that_waits_for_another_trigger_than_stored_is_failed(deferring: WorkerLease) -> None:
    ti_id = _defer(deferring)
    with compat.transaction() as session:
        stray = Trigger(
            queue=TRIGGER_QUEUE, created_date=datetime.now(timezone.utc) - timedelta(minutes=2), classpath=PLACEHOLDER
        )
        session.add(stray)
        session.flush()
        session.execute(update(TaskInstance).where(TaskInstance.id == ti_id).values(trigger_id=stray.id))
    with compat.transaction() as session:
        assert deferrals.repair(session) == 1
    assert _task(ti_id).state == "scheduled"


def test_a_task_that_waits_for_an_unknown_trigger_is_failed(deferring: WorkerLease) -> None:
    ti_id = _defer(deferring)
    with compat.transaction() as session:
        session.execute(Deferral.__table__.delete())  # type: ignore[attr-defined]
        assert deferrals.repair(session) == 0
        session.execute(update(Trigger).values(created_date=ago(minutes=5)))
    with compat.transaction() as session:
        assert deferrals.repair(session) == 1
    assert _task(ti_id).state == "scheduled"
    assert _resumption(ti_id) is None, "so the task fails with the placeholder's own reason"


def test_waits_of_ended_tasks_are_deleted(deferring: WorkerLease) -> None:
    ti_id = _defer(deferring)
    with compat.transaction() as session:
        session.execute(update(Deferral).values(deferred_at=ago(days=2)))
    for state, kept in (("deferred", 1), ("success", 0)):
        change_task(ti_id, state=state)
        with compat.transaction() as session:
            deferrals.purge(session)
        with compat.transaction() as session:
            assert len(session.scalars(select(Deferral)).all()) == kept


def test_a_hosted_trigger_does_not_count_as_a_running_job_of_its_queue(deferring: WorkerLease, host: Enlisted) -> None:
    _defer(deferring)
    with compat.transaction() as session:
        leases.report(session, deferring, Report(Outcome.SUCCEEDED, exit_code=0))
    with compat.transaction() as session:
        assert [(depth.queued, depth.running) for depth in queues.depths(session)] == [(1, 0)]
    _hosted(host)
    with compat.transaction() as session:
        assert queues.depths(session) == []


# Where a trigger runs

LISTED, BODY = "company.triggers.Gate", b'{"state":"deferred","classpath":"company.triggers.Gate"}'


def _allow(*classpaths: str) -> None:
    with compat.transaction() as session:
        queue_policy.allow(session, "q", {GrantKind.CODE_ON_CENTRAL: classpaths}, by="ann")


def _where(lease: WorkerLease, classpath: str = LISTED, body: bytes = BODY) -> tuple[bool, bool]:
    """Return whether the trigger runs on central, and whether an earlier call has decided that."""
    with compat.transaction() as session:
        return queue_policy.runs_on_central(session, lease, classpath=classpath, body=body)


def _decided(lease: WorkerLease, *, on_central: bool) -> None:
    """Let the first call go through."""
    with compat.transaction() as session:
        leases.conclude(session, lease, done=True, body=BODY)
        deferrals.note(session, lease.job_id, NewWait("resume", "{}", "{}", None if on_central else LISTED))


def test_the_queue_s_policy_decides_where_a_trigger_runs(deferring: WorkerLease) -> None:
    assert _where(deferring) == (False, False)
    _allow(LISTED)
    assert _where(deferring) == (True, False)
    assert _where(deferring, "company.triggers.Other") == (False, False)


def test_a_repeated_call_keeps_the_first_decision(deferring: WorkerLease) -> None:
    """The first call may have written Airflow's row, so a change of the policy since then has no effect."""
    _decided(deferring, on_central=False)
    _allow(LISTED)
    assert _where(deferring) == (False, True)


def test_a_class_removed_from_the_list_stays_on_central_for_a_repeated_call(deferring: WorkerLease) -> None:
    _allow(LISTED)
    _decided(deferring, on_central=True)
    with compat.transaction() as session:
        queue_policy.deny(session, "q", {GrantKind.CODE_ON_CENTRAL: [LISTED]}, by="ann")
    assert _where(deferring) == (True, True)


def test_another_call_is_decided_by_the_policy_alone(deferring: WorkerLease) -> None:
    _decided(deferring, on_central=True)
    assert _where(deferring, "os.system", b'{"state":"deferred","classpath":"os.system"}') == (False, False)


def test_a_call_that_airflow_refused_makes_no_decision(deferring: WorkerLease) -> None:
    _decided(deferring, on_central=True)
    with compat.transaction() as session:
        leases.conclude(session, deferring, done=False)
    assert _where(deferring) == (False, False)


def test_our_own_classes_cannot_be_listed_as_code_on_central() -> None:
    with pytest.raises(queue_policy.BadGlob, match="of the Remote Executor itself"):
        _allow(ON_CENTRAL)
