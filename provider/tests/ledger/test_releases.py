"""Releases of the worker's software: added, rolled out to a share, withdrawn, halted by a failure, and asked for one worker."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any, TypeVar

import pytest
from sqlalchemy.orm import Session

from testkit.ledger import Enlisted, audit_entries, change_worker, enlist, session_request, worker_row  # isort: skip

from airflow_remote_protocol.messages import HeldRelease, ReleasePhase
from airflow_remote_provider import compat
from airflow_remote_provider.ledger import held_releases, releases, rollouts, runtimes, sessions
from airflow_remote_provider.ledger.assignments import WORKER, bucket, choose_release, release_host_of
from airflow_remote_provider.ledger.errors import LedgerError, NotFound, Revoked
from airflow_remote_provider.ledger.runtimes import Built
from airflow_remote_provider.ledger.views import releases as view

from testkit.runtimes import LINUX, WINDOWS, stored_tree

pytestmark = pytest.mark.usefixtures("database")

T = TypeVar("T")
RUNNING, FAILED, PREPARING, REFUSED = ReleasePhase.RUNNING, ReleasePhase.FAILED, ReleasePhase.PREPARING, ReleasePhase.REFUSED


def _do(work: Callable[[Session], T]) -> T:
    return compat.in_transaction(work)


def _enlist(name: str = "worker", **options: Any) -> Enlisted:
    return enlist(name, capabilities=("task", "releases"), **{"platform": LINUX, **options})


def _add(version: str = "0.2.0", *platforms: str) -> int:
    built = [Built(platform, stored_tree(str(uuid.uuid4()))) for platform in platforms or (LINUX,)]
    return _do(lambda session: releases.add(session, version, built, by="ann"))


def _roll(**options: Any) -> int:
    return _do(lambda session: rollouts.roll(session, rollouts.RELEASES, by="ann", **options))


def _named(worker: Enlisted) -> tuple[int, str]:
    """Return serial and version of the release that the worker is named; serial 0: none."""
    host = release_host_of(worker_row(worker.id))
    assert host is not None
    wanted = choose_release(_do(runtimes.load_plan).releases, host)
    return (wanted.serial, wanted.version) if wanted else (0, "")


def _tree(serial: int) -> str:
    rows = _do(view.show_releases).editions
    return next(row.tree for row in rows if row.serial == serial)


def _report(worker: Enlisted, serial: int, phase: ReleasePhase, detail: str = "") -> Any:
    tree = _tree(serial)
    running = tree if phase is RUNNING else ""
    held = HeldRelease(serial, tree, phase, detail)
    return _do(lambda session: held_releases.note(session, worker.id, held, running=running))


def _halted() -> str:
    return _do(view.summarize_releases).halted


def test_a_release_that_was_added_is_named_to_nobody_before_it_is_rolled_out() -> None:
    worker = _enlist()
    assert _named(worker) == (0, "")
    assert _add() == 1
    assert _named(worker) == (0, "")
    assert _roll() == 1
    assert _named(worker) == (1, "0.2.0")
    assert "rolled serial 1 of the worker's releases out to 100 % of the workers" in audit_entries()[0].detail


def test_workers_beyond_the_share_of_the_first_rollout_keep_what_they_run() -> None:
    workers = [_enlist(f"worker-{number}") for number in range(8)]
    _add()
    _roll(percent=50)
    for worker in workers:
        assert _named(worker)[0] == (1 if bucket(worker.id, WORKER) < 50 else 0)


def test_a_first_rollout_that_is_halted_names_no_release_but_to_those_that_run_it() -> None:
    first, second = _enlist("first"), _enlist("second")
    _add()
    _roll()
    _report(first, 1, RUNNING)
    _report(second, 1, PREPARING)
    _do(lambda session: rollouts.halt(session, rollouts.RELEASES, by="ann"))
    assert (_named(first)[0], _named(second)[0]) == (1, 0)
    _add("0.2.1")
    _roll(percent=0)
    assert (_named(first)[0], _named(second)[0]) == (0, 0), "nobody is given the halted one"


def test_another_release_takes_over_and_a_rollback_is_a_new_serial_of_the_old_trees() -> None:
    worker = _enlist()
    _add("0.2.0")
    _roll()
    _add("0.3.0")
    _roll()
    assert _named(worker) == (2, "0.3.0")
    assert _roll(to=1) == 3
    assert _named(worker) == (3, "0.2.0")
    assert _tree(3) == _tree(1)
    with pytest.raises(NotFound, match="no serial 9 of the worker's releases; there are: 1, 2, 3"):
        _roll(to=9)


def test_a_worker_of_another_platform_is_named_the_newest_release_for_it() -> None:
    windows = _enlist("windows", platform=WINDOWS)
    _add("0.2.0", LINUX, WINDOWS)
    _roll()
    _add("0.3.0", LINUX)
    _roll()
    assert _named(windows) == (1, "0.2.0")


def test_a_failure_halts_the_rollout_once_for_each_serial() -> None:
    worker, other = _enlist(), _enlist("other")
    _add("0.2.0")
    _roll()
    for one in (worker, other):
        _report(one, 1, RUNNING)
    _add("0.3.0")
    _roll()
    _report(worker, 2, REFUSED, "it is not signed")
    assert _halted() == ""
    _report(worker, 2, FAILED, "it can't\nbe imported")
    assert _halted() == "worker worker: it can't be imported"
    assert _named(other) == (1, "0.2.0")
    _do(lambda session: rollouts.resume(session, rollouts.RELEASES, by="ann"))
    _report(worker, 2, PREPARING)
    _report(worker, 2, FAILED, "again")
    assert _halted() == "", "a worker halts the rollout of a serial once only"
    _report(other, 2, FAILED)
    assert "worker other" in _halted()


def test_a_failure_is_shown_after_its_release_was_withdrawn() -> None:
    worker = _enlist()
    _add()
    _roll()
    _report(worker, 1, FAILED, "it can't be imported")
    assert _named(worker) == (0, ""), "the site's own release is what it goes back to"
    _do(lambda session: held_releases.note(session, worker.id, None, running=""))
    (row,) = _do(view.show_releases).workers
    assert (row.phase, row.detail, row.is_installed) == ("failed", "it can't be imported", True)
    assert view.held_release(worker_row(worker.id).release) == view.HeldReleaseRow(1, "failed", "it can't be imported", True)


def test_a_failure_of_an_older_serial_halts_nothing() -> None:
    worker = _enlist()
    _add("0.2.0")
    _roll()
    _add("0.3.0")
    _roll()
    _report(worker, 1, FAILED)
    assert _halted() == ""


def test_one_worker_can_be_given_the_newest_release_whatever_the_share() -> None:
    worker, other = _enlist(), _enlist("other")
    with pytest.raises(NotFound, match="releases add"):
        _do(lambda session: releases.request_update(session, "worker", by="ann"))
    _add("0.2.0")
    _roll()
    _add("0.3.0")
    _do(lambda session: releases.request_update(session, "worker", by="ann"))
    assert (_named(worker)[0], _named(other)[0]) == (2, 1)
    assert _roll(to=1) == 3
    assert _named(worker) == (3, "0.2.0"), "a later rollout counts for it, too"


def test_an_update_says_why_a_worker_can_have_none() -> None:
    enlist("old")
    _enlist("windows", platform=WINDOWS)
    _add()
    with pytest.raises(LedgerError, match="takes no releases from central"):
        _do(lambda session: releases.request_update(session, "old", by="ann"))
    with pytest.raises(LedgerError, match=f"releases add --platform {WINDOWS}"):
        _do(lambda session: releases.request_update(session, "windows", by="ann"))


def test_nothing_is_stored_of_a_worker_without_the_capability_and_a_removed_one_is_refused() -> None:
    worker = enlist("old")
    _add()
    _roll()
    _report(worker, 1, RUNNING)
    assert worker_row(worker.id).release is None
    with pytest.raises(Revoked):
        _do(lambda session: held_releases.note(session, "nobody", None, running=""))


def test_a_session_without_the_capability_forgets_the_release() -> None:
    worker = _enlist()
    _add()
    _roll()
    _report(worker, 1, RUNNING)
    assert worker_row(worker.id).release["runs"] == _tree(1)
    _do(lambda session: sessions.open_session(session, worker.id, session_request()))
    assert worker_row(worker.id).release is None


def test_users_see_what_each_worker_runs() -> None:
    ready, late = _enlist("ready"), _enlist("late")
    enlist("old")
    with pytest.raises(NotFound, match="releases add"):
        _do(view.show_releases)
    _add("0.2.0", LINUX, WINDOWS)
    _roll()
    _report(ready, 1, RUNNING)
    shown = _do(view.show_releases)
    assert [(row.worker, row.phase, row.serial, row.is_installed) for row in shown.workers] == [
        ("late", view.WAITING, 1, True),
        ("ready", "running", 1, False),
    ]
    assert (shown.about.workers, shown.about.running, shown.about.preparing, shown.about.version) == (2, 1, 1, "0.2.0")
    assert {row.platform: row.running for row in shown.editions} == {LINUX: 1, WINDOWS: 0}
    assert _do(view.count_release_phases) == {(1, "running"): 1, (1, view.WAITING): 1}
    assert _do(releases.fleet_platforms) == {LINUX: 2}
    change_worker(late.id, revoked_at=_do(compat.database_now))
    assert [row.worker for row in _do(view.show_releases).workers] == ["ready"]


def test_a_release_needs_a_platform_and_stored_files() -> None:
    with pytest.raises(LedgerError, match="at least one platform"):
        _do(lambda session: releases.add(session, "0.2.0", [], by="ann"))
    with pytest.raises(Exception, match="was not begun"):
        _do(lambda session: releases.add(session, "0.2.0", [Built(LINUX, "ab" * 32)], by="ann"))
