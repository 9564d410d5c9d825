"""What time and people do to jobs."""

from __future__ import annotations

import threading
import uuid
from datetime import timedelta

import pytest
from sqlalchemy import Engine, delete, func, select, update

from testkit.ledger import (  # isort: skip
    TaskInstance,
    ago,
    audited,
    change_job,
    change_task,
    claim,
    counted,
    enlist,
    job_row,
    last_seen,
    offered,
    queued,
    running,
    substitute,
)

from airflow_remote_protocol.messages import Outcome, Report
from airflow_remote_provider import compat
from airflow_remote_provider.ledger import (
    duty,
    ended_tasks,
    expired_offers,
    heartbeats,
    jobs,
    leases,
    lost_jobs,
    retention,
    workers,
)
from airflow_remote_provider.models import Duty, Job, Worker, WorkerContact

pytestmark = pytest.mark.usefixtures("database")

RULES = expired_offers.OfferRules(attempts=3, delay=timedelta(seconds=10))


def _do(verb: object, *args: object, **kwargs: object) -> object:
    with compat.transaction() as session:
        return verb(session, *args, **kwargs)  # type: ignore[operator]


def _task(job_id: str) -> TaskInstance:
    with compat.transaction() as session:
        task = session.get(TaskInstance, job_row(job_id).ti_id)
    assert task is not None
    return task


# Offers that nobody accepts


def test_an_offer_is_made_again_later_each_time_and_then_fails() -> None:
    worker = enlist("edge-1")
    job = queued()
    delays = []
    for _ in range(RULES.attempts):
        change_job(job.job_id, not_before=None)
        assert len(claim(worker.claimant())) == 1
        change_job(job.job_id, deadline_at=ago(seconds=1))
        assert _do(expired_offers.expire_offers, RULES) == 1
        row = job_row(job.job_id)
        delays.append(None if row.not_before is None else round((row.not_before - ago()).total_seconds()))
    assert delays == [10, 20, None]
    assert row.state == "failed" and row.ended_at is not None
    assert "offered 3 times" in row.reason and "edge-1" in row.reason


def test_an_offer_within_its_deadline_stands() -> None:
    lease = offered(enlist())
    assert _do(expired_offers.expire_offers, RULES) == 0
    assert job_row(lease.job_id).state == "offered"


def test_a_running_job_never_expires() -> None:
    lease = running(enlist())
    assert _do(expired_offers.expire_offers, RULES) == 0
    assert job_row(lease.job_id).state == "running"


def test_the_expired_offer_is_fenced_off() -> None:
    worker = enlist()
    lease = offered(worker)
    change_job(lease.job_id, deadline_at=ago(seconds=1))
    _do(expired_offers.expire_offers, RULES)
    with pytest.raises(leases.Superseded):
        _do(leases.accept, lease)


def test_an_acceptance_that_comes_while_the_offer_expires_is_too_late() -> None:
    lease, late = offered(enlist()), []
    change_job(lease.job_id, deadline_at=ago(seconds=1))

    def accept() -> None:
        try:
            _do(leases.accept, lease)
        except leases.Superseded as error:
            late.append(error)

    thread = threading.Thread(target=accept)
    with compat.transaction() as session:
        assert expired_offers.expire_offers(session, RULES) == 1
        thread.start()
        thread.join(0.3)
        assert thread.is_alive(), "it waits, though nothing is written yet"
    thread.join(10)
    assert len(late) == 1
    assert job_row(lease.job_id).state == "queued"


# Tasks that somebody ended

WHY = {
    "success": "ended",
    "failed": "ended",
    "skipped": "ended",
    "up_for_retry": "ended",
    "up_for_reschedule": "ended",
    "upstream_failed": "ended",
    "deferred": "ended",
    None: "cleared",
    "restarting": "cleared",
    "scheduled": "cleared",
    "removed": "cleared",
}


@pytest.mark.parametrize(("state", "why"), WHY.items(), ids=map(str, WHY))
def test_a_running_job_is_told_why_its_task_needs_it_no_more(state: str | None, why: str) -> None:
    lease = running(enlist())
    assert _do(ended_tasks.stop_ended) == 0
    change_task(job_row(lease.job_id).ti_id, state=state)
    assert _do(ended_tasks.stop_ended) == 1
    row = job_row(lease.job_id)
    assert (row.state, row.stop_reason) == ("running", why)
    assert _do(ended_tasks.stop_ended) == 0, "once"


@pytest.mark.parametrize("state", ["queued", "running"])
def test_a_task_that_is_under_way_needs_its_job(state: str) -> None:
    worker = enlist()
    waiting, run = queued("elsewhere"), running(worker)
    for ti_id in (waiting.ti_id, job_row(run.job_id).ti_id):
        change_task(ti_id, state=state)
    assert _do(ended_tasks.stop_ended) == 0


def test_a_deleted_task_is_gone() -> None:
    lease = running(enlist())
    with compat.transaction() as session:
        session.execute(delete(TaskInstance))
    assert _do(ended_tasks.stop_ended) == 1
    assert job_row(lease.job_id).stop_reason == "gone"


def test_a_task_that_belongs_to_another_attempt_is_gone() -> None:
    lease = running(enlist())
    change_task(job_row(lease.job_id).ti_id, external_executor_id=str(uuid.uuid4()))
    assert _do(ended_tasks.stop_ended) == 1
    assert job_row(lease.job_id).stop_reason == "gone"


def test_a_task_without_an_executor_id_is_taken_as_ours() -> None:
    lease = running(enlist())
    change_task(job_row(lease.job_id).ti_id, external_executor_id=None)
    assert _do(ended_tasks.stop_ended) == 0


@pytest.mark.parametrize("state", ["success", "failed", "deferred", "up_for_retry", None])
def test_a_job_whose_own_end_went_through_is_never_stopped(state: str | None) -> None:
    lease = running(enlist())
    _do(leases.conclude, lease, done=True)
    change_task(job_row(lease.job_id).ti_id, state=state, external_executor_id="next")
    assert _do(ended_tasks.stop_ended) == 0
    assert job_row(lease.job_id).stop_reason is None


def test_what_never_ran_is_revoked_at_once() -> None:
    offer = offered(enlist())
    waiting = queued("elsewhere")
    with compat.transaction() as session:
        session.execute(update(TaskInstance).values(state="failed"))
    assert _do(ended_tasks.stop_ended) == 2
    for job_id in (offer.job_id, waiting.job_id):
        row = job_row(job_id)
        assert (row.state, row.stop_reason) == ("revoked", "ended") and row.ended_at is not None


def test_an_ended_job_is_left_alone() -> None:
    lease = running(enlist())
    _do(leases.report, lease, Report(Outcome.DIED))
    change_task(job_row(lease.job_id).ti_id, state="success")
    assert _do(ended_tasks.stop_ended) == 0


def test_a_job_told_to_stop_for_one_reason_keeps_it() -> None:
    lease = running(enlist())
    _do(jobs.revoke, lease.job_id)
    change_task(job_row(lease.job_id).ti_id, state="failed")
    assert _do(ended_tasks.stop_ended) == 0
    assert job_row(lease.job_id).stop_reason == "revoked"


def test_looking_for_ended_tasks_is_one_statement_when_there_are_none(database: Engine) -> None:
    worker = enlist(slots=20)
    for _ in range(10):
        running(worker)
    with counted(database) as statements:
        _do(ended_tasks.stop_ended)
    assert len(statements) == 1


# Silence


@pytest.mark.parametrize(("silent_s", "lost"), [(30, 0), (59, 0), (61, 1)])
def test_a_job_is_lost_when_its_worker_was_silent_for_too_long(silent_s: float, lost: int) -> None:
    worker = enlist("edge-1")
    lease = running(worker, lost_after_s=60)
    change_job(lease.job_id, accepted_at=ago(hours=9))
    last_seen(worker.id, ago(seconds=silent_s))
    assert _do(lost_jobs.lose_silent) == lost
    row = job_row(lease.job_id)
    assert row.state == ("lost" if lost else "running")
    if lost:
        assert "edge-1" in row.reason and "0:01:00" in row.reason and row.ended_at is not None


def test_each_job_has_its_own_patience() -> None:
    worker = enlist()
    hasty, patient = running(worker, lost_after_s=60), running(worker, lost_after_s=3600)
    for lease in (hasty, patient):
        change_job(lease.job_id, accepted_at=ago(hours=1))
    last_seen(worker.id, ago(minutes=10))
    assert _do(lost_jobs.lose_silent) == 1
    assert (job_row(hasty.job_id).state, job_row(patient.job_id).state) == ("lost", "running")


def test_silence_counts_from_acceptance_if_no_contact_was_noted() -> None:
    worker = enlist()
    fresh, old = running(worker, lost_after_s=60), running(worker, lost_after_s=60)
    change_job(old.job_id, accepted_at=ago(minutes=2))
    last_seen(worker.id, None)
    assert _do(lost_jobs.lose_silent) == 1
    assert (job_row(fresh.job_id).state, job_row(old.job_id).state) == ("running", "lost")


def test_an_acceptance_is_a_contact_that_need_not_be_written_down_yet() -> None:
    worker = enlist()
    lease = running(worker, lost_after_s=60)
    last_seen(worker.id, ago(minutes=5))  # its poll was parked for long
    assert _do(lost_jobs.lose_silent) == 0
    assert job_row(lease.job_id).state == "running"


def test_an_acceptance_stamped_in_the_future_hides_no_silence() -> None:
    worker = enlist()
    lease = running(worker, lost_after_s=60)
    change_job(lease.job_id, accepted_at=ago(days=-1))
    last_seen(worker.id, ago(minutes=5))
    assert _do(lost_jobs.lose_silent) == 1


def test_only_running_jobs_are_lost_by_silence() -> None:
    worker = enlist()
    offer = offered(worker, lost_after_s=60)
    last_seen(worker.id, ago(days=1))
    assert _do(lost_jobs.lose_silent) == 0
    assert job_row(offer.job_id).state == "offered", "its deadline takes care of it"


def test_a_lost_job_is_in_the_audit() -> None:
    worker = enlist("edge-1")
    lease = running(worker, lost_after_s=60, dag_id="etl", task_id="load", try_number=2, run_id="r1")
    change_job(lease.job_id, accepted_at=ago(hours=1))
    last_seen(worker.id, ago(minutes=2))
    _do(lost_jobs.lose_silent)
    (entry,) = audited(job_id=lease.job_id)
    assert (entry.kind, entry.worker, entry.job_id, entry.times) == ("job-lost", "edge-1", lease.job_id, 1)
    assert "etl.load (try 2, run r1)" in entry.detail and "not heard of" in entry.detail


@pytest.mark.parametrize(("missing_s", "lost"), [(None, 0), (14, 0), (16, 1)])
def test_a_job_that_its_worker_does_not_list_is_lost_after_a_grace(missing_s: float | None, lost: int) -> None:
    lease = running(enlist("edge-1"))
    change_job(lease.job_id, missing_since=None if missing_s is None else ago(seconds=missing_s))
    assert _do(lost_jobs.lose_missing, grace=timedelta(seconds=15)) == lost
    row = job_row(lease.job_id)
    assert row.state == ("lost" if lost else "running")
    assert not lost or row.reason == "worker edge-1 came back without this job"


# The database's clock is set


def test_after_the_clock_was_set_nothing_waits_for_a_day_and_nothing_is_over_at_once() -> None:
    worker = enlist(slots=9)
    ahead, over, held = offered(worker), offered(worker), running(worker)
    waiting = queued("elsewhere")
    change_job(ahead.job_id, deadline_at=ago(days=-1))
    change_job(over.job_id, deadline_at=ago(days=1))
    change_job(waiting.job_id, not_before=ago(days=-1))
    change_job(held.job_id, missing_since=ago(days=-1))
    last_seen(worker.id, ago(days=-1))
    _do(lost_jobs.rebase, offer_deadline=timedelta(seconds=30))
    for lease in (ahead, over):
        assert ago(seconds=-10) < job_row(lease.job_id).deadline_at < ago(seconds=-40)  # type: ignore[operator]
    assert job_row(waiting.job_id).not_before is None
    assert job_row(held.job_id).missing_since < ago(seconds=-5)  # type: ignore[operator]
    with compat.transaction() as session:
        assert session.get(WorkerContact, worker.id).last_seen_at < ago(seconds=-5)  # type: ignore[union-attr, operator]


def test_a_silence_is_not_shortened_by_it() -> None:
    worker = enlist()
    silent_since = ago(minutes=30)
    last_seen(worker.id, silent_since)
    _do(lost_jobs.rebase, offer_deadline=timedelta(seconds=30))
    with compat.transaction() as session:
        assert session.get(WorkerContact, worker.id).last_seen_at == silent_since  # type: ignore[union-attr]


def test_a_duty_that_was_taken_before_the_clock_was_set_back_is_free() -> None:
    with compat.transaction() as session:
        session.add(Duty(name="sweep", holder="dead", until=ago(days=-1)))
    assert _do(duty.take_duty, "sweep", "alive", lasts=timedelta(seconds=15))


# Vouching


def test_a_heartbeat_is_fresh_by_the_clock_of_the_scheduler_that_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    lease = running(enlist())
    substitute(monkeypatch, "database_clock", lambda session, after=timedelta(): ago(days=1))
    _do(heartbeats.refresh_heartbeats)
    heartbeat = _task(lease.job_id).last_heartbeat_at
    assert heartbeat is not None and heartbeat > ago(seconds=30), "the database's clock was set back"


def test_two_updates_vouch_for_the_whole_fleet(database: Engine) -> None:
    leased = [running(enlist(f"w{i}")) for i in range(3)]
    with counted(database) as statements:
        assert _do(heartbeats.refresh_heartbeats) == 3
    assert len([statement for statement in statements if statement.startswith("UPDATE")]) == 2
    assert len(statements) <= 4, "besides at most the clock"
    for lease in leased:
        heartbeat = _task(lease.job_id).last_heartbeat_at
        assert heartbeat is not None and heartbeat > ago(seconds=30)


def test_a_cleared_task_is_vouched_for_until_its_job_has_ended() -> None:
    """Airflow gives it a new id and waits for the old one's end, or for a heartbeat that doesn't come."""
    worker = enlist()
    over, cleared = running(worker), running(worker)
    for lease in (over, cleared):
        change_task(job_row(lease.job_id).ti_id, id=uuid.uuid4(), state="restarting")
    change_job(over.job_id, state="revoked")
    assert _do(heartbeats.refresh_heartbeats) == 1
    with compat.transaction() as session:
        [vouched] = session.scalars(select(TaskInstance).where(TaskInstance.last_heartbeat_at.is_not(None)))
    assert vouched.external_executor_id == cleared.job_id


def test_nobody_vouches_for_what_does_not_run() -> None:
    worker = enlist()
    waiting, lost, other_state = queued("elsewhere"), running(worker), running(worker)
    change_job(lost.job_id, state="lost")
    change_task(job_row(other_state.job_id).ti_id, state="failed")
    assert _do(heartbeats.refresh_heartbeats) == 0
    for job_id in (waiting.job_id, lost.job_id, other_state.job_id):
        assert _task(job_id).last_heartbeat_at is None


# Duty


def test_a_duty_has_one_holder_until_it_lapses() -> None:
    lasts = timedelta(seconds=15)
    assert _do(duty.take_duty, "sweep", "one", lasts=lasts)
    assert not _do(duty.take_duty, "sweep", "two", lasts=lasts)
    assert _do(duty.take_duty, "sweep", "one", lasts=lasts), "its holder keeps it"
    assert _do(duty.take_duty, "other", "two", lasts=lasts), "another duty is another matter"
    with compat.transaction() as session:
        session.execute(update(Duty).where(Duty.name == "sweep").values(until=ago(seconds=1)))
    assert _do(duty.take_duty, "sweep", "two", lasts=lasts)
    assert not _do(duty.take_duty, "sweep", "one", lasts=lasts)


@pytest.mark.parametrize("lapsed", [False, True], ids=["never had", "lapsed"])
def test_of_many_that_take_a_duty_at_once_one_gets_it(lapsed: bool) -> None:
    if lapsed:
        with compat.transaction() as session:
            session.add(Duty(name="sweep", holder="dead", until=ago(seconds=1)))
    start, taken = threading.Barrier(6), []

    def take(holder: str) -> None:
        start.wait(10)
        if _do(duty.take_duty, "sweep", holder, lasts=timedelta(seconds=15)):
            taken.append(holder)

    threads = [threading.Thread(target=take, args=(str(i),)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(taken) == 1


def test_any_open_says_whether_there_is_anything_to_watch() -> None:
    assert not _do(duty.any_open)
    lease = running(enlist())
    assert _do(duty.any_open)
    _do(leases.report, lease, Report(Outcome.SUCCEEDED))
    assert not _do(duty.any_open)


def test_a_look_is_the_databases_clock_and_whether_anything_is_open(database: Engine) -> None:
    with counted(database) as statements:
        now, is_open = _do(duty.look)  # type: ignore[misc]
    assert len(statements) == 1
    assert not is_open and abs(now - ago()) < timedelta(seconds=5)
    running(enlist())
    assert _do(duty.look)[1]  # type: ignore[index]


# History


def test_only_old_ended_jobs_of_which_the_scheduler_needs_no_word_are_forgotten() -> None:
    worker = enlist(slots=9)
    old, young, untold, concluded, live = (running(worker) for _ in range(5))
    for lease, ended in ((old, 20), (young, 1), (untold, 20), (concluded, 20)):
        change_job(lease.job_id, state="succeeded", ended_at=ago(days=ended), settled_at=ago(days=ended))
    change_job(untold.job_id, settled_at=None)
    # Its task told its state itself while no scheduler lived; none will ever ask for the job.
    change_job(concluded.job_id, settled_at=None, concluded_at=ago(days=20))
    change_job(live.job_id, queued_at=ago(days=90), accepted_at=ago(days=90))
    assert _do(retention.purge, older_than=timedelta(days=14)) == 2
    with compat.transaction() as session:
        assert set(session.scalars(select(Job.id))) == {young.job_id, untold.job_id, live.job_id}


def test_removed_workers_are_forgotten_a_day_later() -> None:
    for name in ("stays", "removed-now", "removed-long-ago"):
        enlist(name)
    for name in ("removed-now", "removed-long-ago"):
        _do(workers.remove_worker, name)
    with compat.transaction() as session:
        session.execute(update(Worker).where(Worker.name == "removed-long-ago").values(removed_at=ago(days=2)))
    _do(retention.purge, older_than=timedelta(days=14))
    with compat.transaction() as session:
        assert set(session.scalars(select(Worker.name))) == {"stays", "removed-now"}
        assert session.scalar(select(func.count()).select_from(WorkerContact)) == 2
