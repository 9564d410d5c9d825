"""The file of a job's log, and the job that owns it."""

from __future__ import annotations

import pytest

from testkit.ledger import (  # isort: skip
    change_job,
    claim,
    enlist,
    job_row,
    offered,
    queued,
    running,
)

from airflow_remote_provider import compat
from airflow_remote_provider.ledger import leases, log_places
from airflow_remote_provider.ledger.fence import WorkerLease
from airflow_remote_provider.ledger.log_places import LogPlace

pytestmark = pytest.mark.usefixtures("database")


def _do(verb: object, *args: object, **kwargs: object) -> object:
    with compat.transaction() as session:
        return verb(session, *args, **kwargs)  # type: ignore[operator]


def _reoffered(worker: object, lease: WorkerLease) -> WorkerLease:
    """Withdraw the offer and make it again, to the same worker."""
    _do(leases.withdraw, [lease])
    (again,) = claim(worker.claimant())  # type: ignore[attr-defined]
    return WorkerLease(lease.worker_id, again.job_id, again.epoch)


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
    assert _do(log_places.log_place, first).path is None, "the size of its part is not known yet"
    assert _do(log_places.log_place, second) == LogPlace(path, None, path)
    _do(log_places.begin_log, second, 25)
    assert _do(log_places.log_place, second) == LogPlace(path, 25, path)
    assert _do(log_places.log_place, first) == LogPlace(f"{path}.{first.job_id}.{first.epoch}.log", -15, path)


def test_the_first_bytes_of_an_older_job_fix_the_end_of_its_part() -> None:
    first = running(enlist())
    path = job_row(first.job_id).log_path
    _do(log_places.begin_log, first, 10)
    second = _resumed(first)
    _do(log_places.end_log, first, 25)
    _do(log_places.end_log, first, 70)
    _do(log_places.begin_log, second, 25)
    assert _do(log_places.log_place, first) == LogPlace(f"{path}.{first.job_id}.{first.epoch}.log", -15, path)


def test_an_older_job_that_logs_after_its_successor_began_gets_a_file_of_its_own() -> None:
    first = running(enlist())
    path = job_row(first.job_id).log_path
    second = _resumed(first)
    beside = LogPlace(f"{path}.{first.job_id}.{first.epoch}.log", 0, path)
    assert _do(log_places.log_place, first) == beside
    _do(log_places.begin_log, first, 3)
    assert _do(log_places.log_place, first) == beside
    assert _do(log_places.log_place, second) == LogPlace(path, None, path)


def test_a_job_that_ended_before_acceptance_does_not_take_the_log_of_the_next() -> None:
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
    assert _do(log_places.begin_log, lease, 250) == 100, "a second writer gets the offset of the first"
    assert _do(log_places.log_place, lease).base == 100  # type: ignore[attr-defined]


def test_a_new_lease_begins_its_own_part() -> None:
    worker = enlist()
    lease = offered(worker)
    _do(log_places.begin_log, lease, 0)
    again = _reoffered(worker, lease)
    assert _do(log_places.log_place, again).base is None  # type: ignore[attr-defined]
    assert _do(log_places.begin_log, again, 40) == 40


def test_a_log_can_arrive_after_the_job_has_ended() -> None:
    lease = running(enlist())
    change_job(lease.job_id, state="lost")
    assert _do(log_places.log_place, lease).path == job_row(lease.job_id).log_path  # type: ignore[attr-defined]
    assert _do(log_places.begin_log, lease, 5) == 5
