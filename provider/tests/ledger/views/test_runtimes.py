"""Runtimes from central as users see them, and why jobs wait for them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import TypeVar

import pytest
from sqlalchemy.orm import Session

from testkit.ledger import change_job, enlist, queued  # isort: skip

from airflow_remote_protocol.messages import HeldRuntime, RuntimePhase
from airflow_remote_provider import compat
from airflow_remote_provider.ledger import held_runtimes, rollouts
from airflow_remote_provider.ledger.errors import NotFound
from airflow_remote_provider.ledger.views.runtimes import count_phases, list_runtimes, show_runtime, teams_with_runtimes
from airflow_remote_provider.ledger.views.scope import Scope
from airflow_remote_provider.ledger.views.waiting import why_waiting
from airflow_remote_provider.ledger.views.workers import list_workers, show_worker

from testkit.runtimes import LINUX, WINDOWS, build, edition

pytestmark = pytest.mark.usefixtures("database")

T = TypeVar("T")
SILENT = timedelta(seconds=90)
READY, FAILED, PREPARING = RuntimePhase.READY, RuntimePhase.FAILED, RuntimePhase.PREPARING


def _do(work: Callable[[Session], T]) -> T:
    return compat.in_transaction(work)


def _worker(name: str, *held: HeldRuntime, platform: str = LINUX, team: str | None = None) -> None:
    worker = enlist(name, capabilities=("task", "runtimes"), platform=platform, team=team)
    _do(lambda session: held_runtimes.note(session, worker.id, held))


@pytest.fixture
def fleet(monkeypatch: pytest.MonkeyPatch) -> str:
    """Five workers with the first serial of `default` in all phases, and one with a runtime of its own. Return the tree."""
    monkeypatch.setattr(held_runtimes, "airflow_version", lambda: "3.3.2")
    build()
    tree = edition("default", 1)
    _worker("ready", HeldRuntime(tree, READY, "3.3.2", "1.3.2", "3.11.9", "canary 1.2 s"))
    _worker("failed", HeldRuntime(tree, FAILED, detail="disk full"))
    _worker("preparing", HeldRuntime(tree, PREPARING, detail="code 43 %"))
    _worker("new", team="red")
    _worker("windows", platform=WINDOWS)
    enlist("site")
    return tree


def test_a_runtime_is_listed_with_how_many_workers_have_it(fleet: str) -> None:
    _do(lambda session: rollouts.assign_queue(session, "plant", "default", by="ann"))
    (row,) = _do(list_runtimes)
    assert (row.name, row.serial, row.built, row.percent, row.labels) == ("default", 1, 1, 100, {})
    assert (row.workers, row.ready, row.preparing, row.failed, row.missing) == (5, 1, 2, 1, 1)
    assert (row.platforms, row.queues, row.updated_by) == ([LINUX], ["plant"], "tests")
    (seen,) = _do(lambda session: list_runtimes(session, scope=Scope(teams=frozenset(), dags=None)))
    assert seen.workers == 4


def test_a_runtime_is_shown_with_what_each_worker_has_of_it(fleet: str) -> None:
    change_job(queued().job_id, runtime=fleet)
    found = _do(lambda session: show_runtime(session, "default"))
    assert [(one.worker, one.serial, one.phase) for one in found.workers] == [
        ("failed", 1, "failed"),
        ("new", 1, "waiting"),
        ("preparing", 1, "preparing"),
        ("windows", None, "missing"),
        ("ready", 1, "ready"),
    ]
    details = {one.worker: one.detail for one in found.workers}
    assert details["ready"] == "canary 1.2 s"
    assert details["failed"] == "serial 1 of the runtime 'default' is not usable: disk full"
    assert f"airflow remote runtimes build default --platform {WINDOWS}" in details["windows"]
    ready = found.workers[-1]
    assert (ready.airflow, ready.task_sdk, ready.python, ready.ready_serials) == ("3.3.2", "1.3.2", "3.11.9", [1])
    (one,) = found.editions
    assert (one.serial, one.platform, one.tree, one.files, one.ready, one.jobs) == (1, LINUX, fleet, 1, 1, 1)
    with pytest.raises(NotFound):
        _do(lambda session: show_runtime(session, "nope"))


def test_workers_are_shown_with_the_runtimes_that_they_report(fleet: str) -> None:
    shown = _do(lambda session: show_worker(session, "ready", silent_after=SILENT))
    (one,) = shown.runtimes
    assert (one.name, one.serial, one.phase, one.task_sdk, one.detail) == ("default", 1, "ready", "1.3.2", "canary 1.2 s")
    rows = _do(lambda session: list_workers(session, silent_after=SILENT)).rows
    assert {row.name: [one.phase for one in row.runtimes] for row in rows} == {
        "failed": ["failed"],
        "new": [],
        "preparing": ["preparing"],
        "ready": ["ready"],
        "site": [],
        "windows": [],
    }


def test_workers_are_counted_by_runtime_serial_and_phase(fleet: str) -> None:
    assert _do(count_phases) == {
        ("default", 1, "ready"): 1,
        ("default", 1, "failed"): 1,
        ("default", 1, "preparing"): 1,
        ("default", 1, "waiting"): 1,
        ("default", 0, "missing"): 1,
    }
    assert _do(teams_with_runtimes) == [None, "red"]


def _why(queue: str = "q") -> str:
    job = queued(queue)
    return _do(lambda session: why_waiting(session, job.job_id, silent_after=SILENT))


def test_a_job_waits_for_a_runtime_that_was_not_built() -> None:
    _worker("edge")
    why = _why()
    assert "No runtime for it is ready at 1 worker(s) (edge): edge: central has not built the runtime 'default' yet" in why
    assert f"airflow remote runtimes build default --platform {LINUX}" in why


def test_a_job_waits_for_the_runtime_of_its_queue() -> None:
    build()
    build("gpu")
    enlisted = enlist("edge", ["q", "g"], capabilities=("task", "runtimes"), platform=LINUX)
    _do(lambda session: rollouts.assign_queue(session, "g", "gpu", by="ann"))
    held = [HeldRuntime(edition("default", 1), READY), HeldRuntime(edition("gpu", 1), PREPARING, detail="code 43 %")]
    _do(lambda session: held_runtimes.note(session, enlisted.id, held))
    assert "edge: serial 1 of the runtime 'gpu' is being prepared (code 43 %)" in _why("g")
    assert "It will be offered to one of 1 worker(s) (edge)" in _why("q")
