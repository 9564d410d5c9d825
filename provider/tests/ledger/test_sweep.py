"""Which editions and trees of runtimes the garbage collection keeps. What it does with bundles is in test_trees.py."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import TypeVar

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from testkit.ledger import change_job, queued  # isort: skip

from airflow_remote_provider import compat
from airflow_remote_provider.ledger import rollouts, runtimes, sweep, trees
from airflow_remote_provider.models import Edition, TreeRow

from testkit.runtimes import LINUX, WINDOWS, build, edition

pytestmark = pytest.mark.usefixtures("database")

T = TypeVar("T")


def _do(work: Callable[[Session], T]) -> T:
    return compat.in_transaction(work)


def _sweep_later(days: float = 100.0) -> None:
    later = timedelta(days=days)
    while not _do(lambda session: sweep.sweep(session, compat.database_now(session) + later, tree_days=30)).is_all:
        pass


def _kept() -> set[tuple[str, str]]:
    rows = _do(lambda session: session.execute(select(Edition.version, Edition.platform)).all())
    return {(row.version, row.platform) for row in rows}


def test_the_newest_serials_the_rolled_one_and_the_previous_one_are_kept() -> None:
    for _ in range(8):
        build()
        if len(_kept()) == 2:
            _do(lambda session: rollouts.roll(session, rollouts.of_runtime("default"), by="ann"))
    _sweep_later(20)
    assert {serial for serial, _ in _kept()} == set("12345678")  # younger than tree_days
    before = _do(runtimes.plan_versions)
    trees_before = {edition("default", serial) for serial in (3, 4, 5)}
    _sweep_later()
    assert {serial for serial, _ in _kept()} == set("12678")
    assert _do(runtimes.plan_versions) != before  # the API processes load the plan again
    stored = set(_do(lambda session: session.scalars(select(TreeRow.digest)).all()))
    assert len(stored) == 5 and not stored & trees_before


def test_an_old_edition_that_a_platform_falls_back_to_is_kept() -> None:
    build("default", LINUX, WINDOWS)
    for _ in range(5):
        build("default", LINUX)
        _do(lambda session: rollouts.roll(session, rollouts.of_runtime("default"), by="ann"))
    _sweep_later()
    assert _kept() == {("1", WINDOWS), ("4", LINUX), ("5", LINUX), ("6", LINUX)}


def test_the_runtime_of_an_open_job_is_kept_until_the_job_has_ended() -> None:
    for _ in range(6):
        build()
        _do(lambda session: rollouts.roll(session, rollouts.of_runtime("default"), by="ann"))
    tree = edition("default", 2)
    job = queued()
    change_job(job.job_id, runtime=tree)
    _sweep_later()
    assert {serial for serial, _ in _kept()} == {"2", "4", "5", "6"}
    assert _do(lambda session: trees.load_tree(session, tree)) is not None
    change_job(job.job_id, state="succeeded")
    _sweep_later()
    assert {serial for serial, _ in _kept()} == {"4", "5", "6"}


def test_of_a_runtime_that_is_built_often_only_some_serials_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep, "MOST_SERIALS", 4)
    for _ in range(7):
        build()
    _sweep_later(0.1)
    assert {serial for serial, _ in _kept()} == {"1", "4", "5", "6", "7"}


def test_the_editions_of_a_bundle_of_the_same_name_are_not_touched() -> None:
    for _ in range(5):
        build()
    with compat.transaction() as session:
        now = compat.database_now(session)
        session.add(Edition(kind="bundle", name="default", version="1", platform="", trouble="", wanted_at=now))
    _sweep_later(20)
    assert len(_kept()) == 6
