"""The fence: a call is refused unless it comes from the worker, the job and the epoch of the newest lease."""

from __future__ import annotations

from datetime import timedelta

import pytest

from testkit.ledger import (  # isort: skip
    ago,
    change_job,
    claim,
    enlist,
    job_row,
    offered,
    queued,
    running,
)

from airflow_remote_protocol.messages import Outcome, Report
from airflow_remote_provider import compat
from airflow_remote_provider.ledger import fence, jobs, leases, log_places
from airflow_remote_provider.ledger.errors import LeaseLapsed, LedgerError, NoSuchJob, Superseded
from airflow_remote_provider.ledger.fence import WorkerLease
from airflow_remote_provider.settings import settings

pytestmark = pytest.mark.usefixtures("database")

DEADLINE = timedelta(seconds=30)


def _do(verb: object, *args: object, **kwargs: object) -> object:
    with compat.transaction() as session:
        return verb(session, *args, **kwargs)  # type: ignore[operator]


def _reoffered(worker: object, lease: WorkerLease) -> WorkerLease:
    """Withdraw the offer and make it again, to the same worker."""
    _do(leases.withdraw, [lease])
    (again,) = claim(worker.claimant())  # type: ignore[attr-defined]
    return WorkerLease(lease.worker_id, again.job_id, again.epoch)


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
def test_a_job_of_another_worker_is_refused_like_an_unknown_one(verb: str) -> None:
    lease = running(enlist("mine"))
    other = enlist("other")
    before = _facts(lease.job_id)
    with pytest.raises(NoSuchJob):
        _do(VERBS[verb], WorkerLease(other.id, lease.job_id, lease.epoch))
    with pytest.raises(NoSuchJob):
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


# The end of a lease


@pytest.mark.parametrize("verb", ["check", "accept"])
def test_a_lease_allows_no_more_calls_once_its_task_has_ended(verb: str) -> None:
    lease = running(enlist())
    _do(leases.conclude, lease, done=True)
    with pytest.raises(LeaseLapsed, match=lease.job_id):
        _do(VERBS[verb], lease)
    _do(log_places.begin_log, lease, 0)
    _do(leases.report, lease, Report(Outcome.SUCCEEDED))


def test_a_state_that_did_not_go_through_does_not_end_the_lease() -> None:
    lease = running(enlist())
    _do(leases.conclude, lease, done=True)
    _do(leases.conclude, lease, done=False)
    _do(fence.check, lease)


def test_a_stopped_task_can_make_calls_for_its_grace_period_only() -> None:
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


def test_a_lease_is_marked_as_taken_back_unless_it_had_concluded() -> None:
    lease = running(enlist())
    assert not _do(fence.check, lease).taken_back
    change_job(lease.job_id, stop_reason="cleared")
    assert _do(fence.check, lease).taken_back
    assert _do(leases.conclude, lease, done=True).taken_back
    assert not _do(leases.conclude, lease, done=True).taken_back


def test_a_refusal_names_the_job_and_the_epoch() -> None:
    lease = running(enlist())
    with pytest.raises(LedgerError) as refused:
        _do(leases.accept, WorkerLease(lease.worker_id, lease.job_id, 9))
    assert lease.job_id in str(refused.value) and "epoch 9" in str(refused.value)


def test_a_long_job_id_is_cut_in_the_error() -> None:
    worker = enlist()
    with pytest.raises(NoSuchJob) as refused:
        _do(leases.accept, WorkerLease(worker.id, "x" * 100_000, 1))
    assert len(str(refused.value)) < 200
    assert queued().job_id
