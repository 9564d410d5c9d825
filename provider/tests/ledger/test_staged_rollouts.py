"""Rollouts without a command: to some workers, then to all; and when they wait for a user."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import TypeVar

import pytest
from sqlalchemy.orm import Session

from testkit.ledger import enlist  # isort: skip

from airflow_remote_protocol.messages import HeldRuntime, RuntimePhase
from airflow_remote_provider import compat
from airflow_remote_provider.ledger import assignments, held_runtimes, rollouts, runtimes, staged_rollouts, workers
from airflow_remote_provider.ledger.staged_rollouts import FOLLOW
from airflow_remote_provider.models import WorkerContact

from testkit.runtimes import LINUX, WINDOWS, build, edition

pytestmark = pytest.mark.usefixtures("database")

T = TypeVar("T")
SILENT = timedelta(seconds=90)


def do(work: Callable[[Session], T]) -> T:
    return compat.in_transaction(work)


def state() -> tuple[int, int, int]:
    record = do(lambda session: runtimes.get(session, "default"))
    assert record is not None
    return record.serial, record.previous, record.percent


def begin(*, adds_only: bool = False) -> bool:
    return do(lambda session: staged_rollouts.begin(session, "default", adds_only=adds_only))


def widen() -> list[str]:
    return do(lambda session: staged_rollouts.widen(session, silent_after=SILENT))


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Enlist a worker that is, or is not, among the first 10 %."""
    buckets: dict[str, int] = {}
    monkeypatch.setattr(assignments, "bucket", lambda worker_id, name: buckets[worker_id])

    def worker(name: str, *, first: bool) -> str:
        found = enlist(name, capabilities=("task", "runtimes"), platform=LINUX)
        buckets[found.id] = 9 if first else 10
        return found.id

    return worker


def report(worker_id: str, serial: int) -> None:
    held = (HeldRuntime(edition("default", serial), RuntimePhase.READY),)
    do(lambda session: held_runtimes.note(session, worker_id, held))


def test_a_build_goes_to_the_first_workers_and_then_to_all(worker: Callable[..., str]) -> None:
    first, other = worker("a", first=True), worker("b", first=False)
    do(lambda session: workers.note_contact(session, [first, other]))
    build()
    assert begin() is True  # the first build is everywhere already
    assert state() == (1, 0, 100)
    build()
    assert begin() is True
    assert (state(), widen()) == ((2, 1, 10), [])  # the first worker does not have it yet
    report(first, 2)
    assert (widen(), state()) == (["default"], (2, 1, 100))
    assert widen() == []


def test_a_fleet_without_workers_among_the_first_is_not_kept_waiting(worker: Callable[..., str]) -> None:
    other = worker("b", first=False)
    do(lambda session: workers.note_contact(session, [other]))
    build()
    build()
    begin()
    assert widen() == ["default"]


def test_a_worker_that_is_switched_off_holds_nobody_up(worker: Callable[..., str]) -> None:
    first = worker("a", first=True)
    build()
    build()
    begin()
    assert widen() == []
    do(lambda session: setattr(session.get(WorkerContact, first), "last_seen_at", datetime(2026, 1, 1, tzinfo=timezone.utc)))
    assert widen() == ["default"]


def test_a_new_platform_keeps_the_share_of_the_rollout() -> None:
    build()
    build()
    do(lambda session: rollouts.roll(session, rollouts.of_runtime("default"), percent=30, by="ann"))
    build("default", WINDOWS)
    assert begin(adds_only=True) is True
    assert state() == (3, 1, 30)


def test_what_waits_for_a_user_is_not_taken_along() -> None:
    build()
    build()  # a user's, not rolled out
    build()
    assert (begin(), state()) == (False, (1, 0, 100))
    do(lambda session: rollouts.roll(session, rollouts.of_runtime("default"), by="ann"))
    do(lambda session: rollouts.halt(session, rollouts.of_runtime("default"), by="ann"))
    build("default", WINDOWS)
    assert begin(adds_only=True) is False


def test_a_command_of_a_user_ends_the_stages() -> None:
    build()
    build()
    begin()
    do(lambda session: rollouts.roll(session, rollouts.of_runtime("default"), percent=5, by="ann"))
    assert (widen(), state()) == ([], (2, 1, 5))


def test_a_build_that_was_left_before_its_rollout_is_rolled_out() -> None:
    build()
    build()
    assert do(staged_rollouts.begin_left) == []  # a user's build

    def mark(session: Session) -> None:
        runtimes.must_lock(session, "default").updated_by = FOLLOW

    do(mark)
    assert (do(staged_rollouts.begin_left), state()) == (["default"], (2, 1, 10))
