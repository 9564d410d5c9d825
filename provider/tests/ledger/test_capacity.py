"""What a worker can still take. How claims use it is in test_dispatch.py."""

from __future__ import annotations

from datetime import timedelta
from types import SimpleNamespace

import pytest

from testkit.ledger import change_job, claim, enlist, offered, queued, running, session_request, worker_row  # isort: skip

from airflow_remote_provider import compat
from airflow_remote_provider.ledger import capacity, leases, sessions
from airflow_remote_provider.ledger.capacity import Claimant, Room


def _job(kind: str = "task", slots: int = 1) -> SimpleNamespace:
    return SimpleNamespace(kind=kind, slots=slots)


def test_room_counts_slots_and_triggers_apart() -> None:
    room = Room(slots=3, triggers=1)
    room.take(_job(slots=2))
    assert (room.slots, room.fits(_job(slots=2)), room.fits(_job())) == (1, False, True)
    assert room.fits(_job("trigger", 0))
    room.take(_job("trigger", 0))
    assert (room.triggers, room.fits(_job("trigger", 0)), room.free_for(_job())) == (0, False, 1)


def test_a_worker_on_trial_takes_one_job_of_any_size() -> None:
    room = Room(slots=3, triggers=0, is_trial=True)
    room.take(_job())
    assert room.slots == 0


@pytest.mark.usefixtures("database")
def test_room_is_bounded_by_the_session_the_limit_and_the_leased_jobs() -> None:
    worker = enlist(slots=4)
    offered(worker)
    with compat.transaction() as session:
        used = capacity.used(session, [worker.id])
    assert used == {worker.id: (1, 0)}
    row = worker_row(worker.id)
    assert capacity.room_of(row, Claimant(worker.id, "", 9), used[worker.id], is_trying=False).slots == 3
    row.slots_limit = 2
    assert capacity.room_of(row, Claimant(worker.id, "", 9), used[worker.id], is_trying=False).slots == 1
    row.early_failures = capacity.EARLY_FAILURES_LIMIT
    assert capacity.room_of(row, Claimant(worker.id, "", 9), used[worker.id], is_trying=True).slots == 0


def _left(worker_id: str) -> int | None:
    with compat.transaction() as session:
        return sessions.jobs_left(session, worker_id)


@pytest.mark.usefixtures("database")
def test_a_worker_with_a_limit_gets_so_many_jobs_of_any_kind_at_a_time_or_in_a_row() -> None:
    worker = enlist(slots=8, capabilities=["task", "callback"], max_jobs=2)
    kinds = ["task", "callback", "task"]
    made = [queued(kind=capacity.JobKind(kind), with_task=kind == "task") for kind in kinds]
    claimed = claim(worker.claimant())
    assert len(claimed) == 2
    assert (_left(worker.id), claim(worker.claimant())) == (0, [])
    for job in claimed:
        with compat.transaction() as session:
            leases.accept(session, worker.lease(job))
        change_job(job.job_id, state="succeeded")
    assert (_left(worker.id), claim(worker.claimant())) == (0, [])
    other = enlist("other", capabilities=["task", "callback"])
    assert [job.job_id for job in claim(other.claimant())] == [
        ({job.job_id for job in made} - {job.job_id for job in claimed}).pop()
    ]


@pytest.mark.usefixtures("database")
@pytest.mark.parametrize("end", ["declined", "withdrawn", "revoked"])
def test_an_offer_that_came_to_nothing_does_not_count(end: str) -> None:
    worker = enlist(ephemeral=True, max_jobs=1)
    lease = offered(worker)
    assert _left(worker.id) == 0
    with compat.transaction() as session:
        if end == "declined":
            leases.decline(session, lease, "no", delay=timedelta(seconds=9))
        elif end == "withdrawn":
            leases.withdraw(session, [lease])
    if end == "revoked":
        change_job(lease.job_id, state="revoked")
    assert _left(worker.id) == 1


@pytest.mark.usefixtures("database")
def test_a_limit_of_a_lasting_worker_counts_from_each_start_and_an_ephemeral_one_s_never_rises() -> None:
    for ephemeral, left in ((False, 3), (True, 0)):
        worker = enlist(f"w-{ephemeral}", [f"q-{ephemeral}"], ephemeral=ephemeral, max_jobs=1)
        lease = running(worker, f"q-{ephemeral}")
        change_job(lease.job_id, state="succeeded")
        with compat.transaction() as session:
            sessions.open_session(session, worker.id, session_request(max_jobs=3))
        assert _left(worker.id) == left
        with compat.transaction() as session:
            sessions.open_session(session, worker.id, session_request())
        assert _left(worker.id) == (0 if ephemeral else None)
