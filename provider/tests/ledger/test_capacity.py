"""What a worker can still take. How claims use it is in test_dispatch.py."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from testkit.ledger import enlist, offered, worker_row  # isort: skip

from airflow_remote_provider import compat
from airflow_remote_provider.ledger import capacity
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
