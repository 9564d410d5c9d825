"""Rollouts without a command: to some workers, then to all; and when they wait for a user."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import TypeVar

import pytest
from sqlalchemy.orm import Session

from testkit.ledger import enlist  # isort: skip

from airflow_remote_protocol.messages import HeldRelease, HeldRuntime, ReleasePhase, RuntimePhase
from airflow_remote_provider import compat
from airflow_remote_provider.ledger import (
    assignments,
    held_releases,
    held_runtimes,
    releases,
    rollouts,
    runtimes,
    staged_rollouts,
    workers,
)
from airflow_remote_provider.ledger.rollouts import RELEASES
from airflow_remote_provider.ledger.runtimes import Built
from airflow_remote_provider.ledger.staged_rollouts import FOLLOW
from airflow_remote_provider.models import WorkerContact

from testkit.runtimes import LINUX, WINDOWS, build, edition, stored_tree

pytestmark = pytest.mark.usefixtures("database")

T = TypeVar("T")
SILENT = timedelta(seconds=90)
DEFAULT = rollouts.of_runtime("default")
NewWorker = Callable[..., str]


def do(work: Callable[[Session], T]) -> T:
    return compat.in_transaction(work)


def state() -> tuple[int, int, int]:
    record = do(lambda session: runtimes.get(session, "default"))
    assert record is not None
    return record.serial, record.previous, record.percent


def release_state() -> tuple[int, int, int]:
    row = do(releases.must_lock)
    return row.serial, row.previous, row.percent


def begin(kind: rollouts.Kind = DEFAULT, *, adds_only: bool = False) -> bool:
    return do(lambda session: staged_rollouts.begin(session, kind, adds_only=adds_only, silent_after=SILENT))


def begin_left() -> list[str]:
    return [kind.text for kind in do(lambda session: staged_rollouts.begin_left(session, silent_after=SILENT))]


def widen() -> list[str]:
    return [kind.text for kind in do(lambda session: staged_rollouts.widen(session, silent_after=SILENT))]


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Iterator[NewWorker]:
    """Enlist a worker with this bucket: it is among the first N % if that is below N."""
    buckets: dict[str, int] = {}
    monkeypatch.setattr(assignments, "bucket", lambda worker_id, name: buckets[worker_id])

    def worker(name: str, bucket: int) -> str:
        found = enlist(name, capabilities=("task", "runtimes", "releases"), platform=LINUX)
        buckets[found.id] = bucket
        do(lambda session: workers.note_contact(session, [found.id]))
        return found.id

    yield worker


def report(worker_id: str, serial: int) -> None:
    held = (HeldRuntime(edition("default", serial), RuntimePhase.READY),)
    do(lambda session: held_runtimes.note(session, worker_id, held))


def fall_silent(worker_id: str, *, for_: timedelta = timedelta(days=1)) -> None:
    def change(session: Session) -> None:
        contact = session.get(WorkerContact, worker_id)
        assert contact is not None
        contact.last_seen_at = compat.database_now(session) - for_

    do(change)


def add_release(*platforms: str) -> int | None:
    built = [Built(platform, stored_tree(str(uuid.uuid4()))) for platform in platforms or (LINUX,)]
    return do(lambda session: releases.add(session, "0.2.0", built, by=FOLLOW))


def report_release(worker_id: str, serial: int, phase: ReleasePhase = ReleasePhase.RUNNING) -> None:
    record = do(releases.get)
    assert record is not None
    tree = next(one.tree for one in record.editions if (one.serial, one.platform) == (serial, LINUX))
    held = HeldRelease(serial, tree, phase)
    do(lambda session: held_releases.note(session, worker_id, held, running=tree))


def test_a_build_goes_to_the_first_workers_and_then_to_all(worker: NewWorker) -> None:
    first = worker("a", 9)
    worker("b", 10)
    build()
    assert begin() is True  # the first build is everywhere already
    assert state() == (1, 0, 100)
    build()
    assert begin() is True
    assert (state(), widen()) == ((2, 1, 10), [])  # the first worker does not have it yet
    report(first, 2)
    assert (widen(), state()) == (["the runtime 'default'"], (2, 1, 100))
    assert widen() == []


def test_the_first_share_is_so_large_that_a_worker_is_among_the_first(worker: NewWorker) -> None:
    worker("a", 60)
    first = worker("b", 42)
    fall_silent(worker("c", 30))
    build()
    build()
    begin()
    assert (widen(), state()) == ([], (2, 1, 43))
    report(first, 2)
    assert (widen(), state()) == (["the runtime 'default'"], (2, 1, 100))


def test_a_worker_that_is_switched_off_holds_nobody_up(worker: NewWorker) -> None:
    first, other = worker("a", 9), worker("b", 70)
    build()
    build()
    begin()
    assert widen() == []
    fall_silent(first)
    assert (widen(), state()) == ([], (2, 1, 71)), "another one is the first"
    report(other, 2)
    assert widen() == ["the runtime 'default'"]


def test_a_fleet_that_is_away_has_proven_nothing(worker: NewWorker) -> None:
    build()
    build()
    begin()
    assert (widen(), state()) == ([], (2, 1, 10))


def test_a_new_platform_keeps_the_share_of_the_rollout() -> None:
    build()
    build()
    do(lambda session: rollouts.roll(session, DEFAULT, percent=30, by="ann"))
    build("default", WINDOWS)
    assert begin(adds_only=True) is True
    assert state() == (3, 1, 30)


def test_what_waits_for_a_user_is_not_taken_along() -> None:
    build()
    build()  # a user's, not rolled out
    build()
    assert (begin(), state()) == (False, (1, 0, 100))
    do(lambda session: rollouts.roll(session, DEFAULT, by="ann"))
    do(lambda session: rollouts.halt(session, DEFAULT, by="ann"))
    build("default", WINDOWS)
    assert begin(adds_only=True) is False


def test_a_command_of_a_user_ends_the_stages() -> None:
    build()
    build()
    begin()
    do(lambda session: rollouts.roll(session, DEFAULT, percent=5, by="ann"))
    assert (widen(), state()) == ([], (2, 1, 5))


def test_a_build_that_was_left_before_its_rollout_is_rolled_out() -> None:
    build()
    build()
    assert begin_left() == []  # a user's build

    def mark(session: Session) -> None:
        runtimes.must_lock(session, "default").updated_by = FOLLOW

    do(mark)
    assert (begin_left(), state()) == (["the runtime 'default'"], (2, 1, 10))


def test_a_new_platform_does_not_end_the_stages_of_the_others(worker: NewWorker) -> None:
    first = worker("a", 9)
    build()
    build()
    begin()
    build("default", WINDOWS)
    assert begin(adds_only=True) is True
    assert (widen(), state()) == ([], (3, 1, 10)), "the first worker does not have serial 2 yet"
    report(first, 2)
    assert widen() == ["the runtime 'default'"]


def test_a_release_goes_to_all_when_the_first_workers_run_it(worker: NewWorker) -> None:
    first, second = worker("a", 5), worker("b", 9)
    worker("c", 10)
    add_release()
    assert begin(RELEASES) is True
    report_release(first, 1)
    assert (widen(), release_state()) == ([], (1, 0, 10))
    report_release(second, 1, ReleasePhase.TRYING)
    assert widen() == []
    report_release(second, 1)
    assert (widen(), release_state()) == (["the worker's releases"], (1, 0, 100))


def test_a_worker_that_a_release_may_have_ended_holds_its_rollout(worker: NewWorker) -> None:
    first, second, before = worker("a", 5), worker("b", 9), worker("c", 1)
    fall_silent(before)
    add_release()
    begin(RELEASES)
    fall_silent(second, for_=timedelta(seconds=85))
    report_release(first, 1)
    assert (widen(), release_state()) == ([], (1, 0, 10))
    report_release(second, 1)
    assert widen() == ["the worker's releases"], "the one that was away before does not count"


def test_a_worker_that_refuses_a_release_neither_proves_it_nor_holds_it(worker: NewWorker) -> None:
    refusing, other = worker("a", 5), worker("b", 50)
    add_release()
    begin(RELEASES)
    report_release(refusing, 1, ReleasePhase.REFUSED)
    assert (widen(), release_state()) == ([], (1, 0, 51)), "another one is the first"
    report_release(other, 1)
    assert widen() == ["the worker's releases"]


def test_a_release_that_fails_at_a_first_worker_goes_no_further(worker: NewWorker) -> None:
    first = worker("a", 5)
    worker("b", 50)
    add_release()
    begin(RELEASES)
    report_release(first, 1, ReleasePhase.FAILED)
    assert (widen(), release_state()) == ([], (1, 0, 10))
    assert do(releases.must_lock).halted.startswith("worker a")


def test_a_release_that_was_left_before_its_rollout_is_rolled_out() -> None:
    add_release()
    assert (begin_left(), release_state()) == (["the worker's releases"], (1, 0, 10))
    assert begin_left() == []
