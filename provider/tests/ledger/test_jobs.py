"""The calls of the executor to the ledger, and stops by users."""

from __future__ import annotations

import threading
import uuid

import pytest
from sqlalchemy import Engine, func, select

from testkit.ledger import (  # isort: skip
    audit_entries,
    claim,
    record_statements,
    enlist,
    job_row,
    new_job,
    offered,
    queued,
    running,
)

from airflow_remote_protocol.messages import Outcome, Report, StopReason
from airflow_remote_protocol.states import JobState
from airflow_remote_provider import compat
from airflow_remote_provider.ledger import fence, jobs, leases
from airflow_remote_provider.ledger.errors import LedgerError, NotFound
from airflow_remote_provider.models import Job

pytestmark = pytest.mark.usefixtures("database")


def _settle(owner: str = "1/") -> dict[str, jobs.EndedJob]:
    with compat.transaction() as session:
        return {job.job_id: job for job in jobs.settle(session, owner)}


def _adopt(ids: list[str], owner: str) -> set[str]:
    with compat.transaction() as session:
        return jobs.adopt(session, ids, owner)


def _revoke(job_id: str) -> None:
    with compat.transaction() as session:
        jobs.revoke(session, job_id)


def _report(lease: fence.WorkerLease, outcome: Outcome = Outcome.SUCCEEDED, **said: object) -> None:
    with compat.transaction() as session:
        leases.report(session, lease, Report(outcome, **said))  # type: ignore[arg-type]


# Enqueue


def test_a_new_job_is_queued_at_epoch_0() -> None:
    row = job_row(queued().job_id)
    assert (row.state, row.epoch, row.offers, row.worker_id) == ("queued", 0, 0, None)


def test_a_batch_is_one_insert(database: Engine) -> None:
    with record_statements(database) as statements, compat.transaction() as session:
        jobs.enqueue(session, [new_job() for _ in range(50)])
    assert len([statement for statement in statements if statement.startswith("INSERT")]) == 1


def test_a_repeated_batch_changes_nothing() -> None:
    worker, job = enlist(), queued()
    claim(worker.claimant())
    other = new_job()
    with compat.transaction() as session:
        jobs.enqueue(session, [job, other])
    assert job_row(job.job_id).state == "offered", "existing jobs are not changed"
    assert job_row(other.job_id).state == "queued", "and new ones are added"


def test_an_empty_batch_is_accepted() -> None:
    with compat.transaction() as session:
        jobs.enqueue(session, [])
        assert session.scalar(select(func.count()).select_from(Job)) == 0


def test_ids_of_250_characters_come_back_whole() -> None:
    long = {"dag_id": "d" * 250, "run_id": "r" * 250, "task_id": "t" * 250, "queue": "q" * 250, "log_path": "l" * 1000}
    job = queued(**long)  # type: ignore[arg-type]
    row = job_row(job.job_id)
    assert {name: getattr(row, name) for name in long} == long
    (claimed,) = claim(enlist(queues=[long["queue"]]).claimant())
    assert claimed.job_id == job.job_id


def test_a_rolled_back_batch_leaves_nothing() -> None:
    job = new_job()
    with pytest.raises(ZeroDivisionError), compat.transaction() as session:
        jobs.enqueue(session, [job])
        raise ZeroDivisionError
    with compat.transaction() as session:
        assert session.get(Job, job.job_id) is None


# Settle


def test_an_end_is_reported_once() -> None:
    lease = running(enlist())
    assert _settle() == {}
    _report(lease, reason="well done")
    (ended,) = _settle().values()
    assert (ended.job_id, ended.state.value, ended.concluded, ended.reason) == (lease.job_id, "succeeded", False, "well done")
    assert _settle() == {}


def test_an_end_is_reported_to_its_owner_only() -> None:
    _report(running(enlist(), owner="2/blue"))
    assert _settle("1/") == {}
    assert len(_settle("2/blue")) == 1


def test_a_concluded_job_is_marked_as_concluded() -> None:
    lease = running(enlist())
    with compat.transaction() as session:
        leases.conclude(session, lease, done=True)
    _report(lease, Outcome.FAILED)
    assert _settle()[lease.job_id].concluded


# Adopt


def test_adoption_changes_the_owner_and_returns_the_known_jobs() -> None:
    lease = running(enlist(), owner="1/")
    assert _adopt([lease.job_id, str(uuid.uuid4())], "2/") == {lease.job_id}
    _report(lease)
    assert (_settle("1/"), list(_settle("2/"))) == ({}, [lease.job_id])


def test_an_end_reported_to_a_dead_scheduler_is_reported_to_the_next() -> None:
    lease = running(enlist())
    _report(lease)
    assert len(_settle("1/")) == 1
    assert _adopt([lease.job_id], "2/") == {lease.job_id}
    assert len(_settle("2/")) == 1


def test_an_end_is_reported_to_the_adopter_even_if_the_old_owner_asks_concurrently() -> None:
    lease, settled = running(enlist()), []
    _report(lease)
    thread = threading.Thread(target=lambda: settled.append(_settle("1/")))
    with compat.transaction() as session:
        assert jobs.adopt(session, [lease.job_id], "2/") == {lease.job_id}
        thread.start()
        thread.join(0.3)
        assert thread.is_alive(), "it waits for the adopting transaction"
    thread.join(10)
    assert settled == [{}]
    assert list(_settle("2/")) == [lease.job_id]


def test_a_revoked_job_is_not_adopted() -> None:
    job = queued()
    _revoke(job.job_id)
    assert _adopt([job.job_id], "2/") == set()


# Revoke


def test_a_queued_job_is_revoked_at_once_and_never_offered() -> None:
    job = queued()
    _revoke(job.job_id)
    assert job_row(job.job_id).state == "revoked"
    assert claim(enlist().claimant()) == []
    assert _settle() == {}, "the scheduler requested it and gets no report"


def test_an_offered_job_is_revoked_at_once_and_its_worker_gets_a_stop() -> None:
    worker = enlist()
    lease = offered(worker)
    _revoke(lease.job_id)
    assert job_row(lease.job_id).state == "revoked"
    with compat.transaction() as session:
        (stop,) = leases.stops_for(session, [worker.id])[worker.id]
    assert (stop.job_id, stop.epoch, stop.reason.value) == (lease.job_id, 1, "revoked")


def test_a_running_job_is_stopped_and_ends_with_its_report() -> None:
    worker = enlist()
    lease = running(worker)
    _revoke(lease.job_id)
    assert job_row(lease.job_id).state == "running", "its slots are in use until it has stopped"
    _report(lease, Outcome.STOPPED)
    assert job_row(lease.job_id).state == "revoked"
    assert _settle() == {}


def test_an_ended_job_is_not_revoked() -> None:
    lease = running(enlist())
    _report(lease)
    _revoke(lease.job_id)
    assert job_row(lease.job_id).state == "succeeded"
    assert len(_settle()) == 1


def test_revoking_an_unknown_job_does_nothing() -> None:
    _revoke(str(uuid.uuid4()))


# Stops by users


def _stop(job_id: str, reason: str = "") -> None:
    with compat.transaction() as session:
        jobs.stop(session, job_id, by="ann", reason=reason)


def test_a_queued_job_stopped_by_a_user_has_failed_for_the_scheduler() -> None:
    job = queued()
    _stop(job.job_id, "wrong data")
    [ended] = _settle().values()
    assert (ended.state, ended.stop_reason, ended.reason) == (JobState.REVOKED, "revoked", "stopped by ann: wrong data")
    [entry] = audit_entries("action")
    assert entry.actor == "ann" and "wrong data" in entry.detail and job.job_id in entry.detail


def test_a_running_job_stopped_by_a_user_ends_at_its_worker_first_with_the_reason() -> None:
    worker = enlist()
    lease = running(worker)
    _stop(lease.job_id, "wrong data")
    assert _settle() == {}
    with compat.transaction() as session:
        [stop] = leases.stops_for(session, [worker.id])[worker.id]
    assert (stop.reason, stop.detail) == (StopReason.REVOKED, "stopped by ann: wrong data")
    with compat.transaction() as session:
        leases.report(session, lease, Report(outcome=Outcome.STOPPED, reason="ended by SIGTERM"))
    [ended] = _settle().values()
    assert (ended.state, ended.reason) == (JobState.REVOKED, "stopped by ann: wrong data (ended by SIGTERM)")


def test_an_ended_or_stopping_job_cannot_be_stopped() -> None:
    job = queued()
    _stop(job.job_id)
    with pytest.raises(LedgerError, match="has already ended: revoked"):
        _stop(job.job_id)
    lease = running(enlist())
    _stop(lease.job_id)
    with pytest.raises(LedgerError, match="already being stopped"):
        _stop(lease.job_id)
    with pytest.raises(NotFound):
        _stop("no such job")


# Reads


def test_the_worker_of_a_job_is_known_after_it_ended() -> None:
    lease = running(enlist("edge-1"))
    _report(lease)
    with compat.transaction() as session:
        assert jobs.worker_of(session, lease.job_id) == "edge-1"
        assert jobs.worker_of(session, "no such job") is None
