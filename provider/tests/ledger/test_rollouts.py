"""Rollouts: begun, widened, halted, resumed, rolled back, and halted by a worker where the runtime fails."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import pytest
from sqlalchemy.orm import Session

from testkit.ledger import audit_entries  # isort: skip

from airflow_remote_provider import compat
from airflow_remote_provider.definitions.needs import encode_labels
from airflow_remote_provider.ledger import queues, rollouts, runtimes
from airflow_remote_provider.ledger.errors import LedgerError, NotFound
from airflow_remote_provider.ledger.runtimes import RuntimeRecord

from testkit.runtimes import LINUX, WINDOWS, build, edition

pytestmark = pytest.mark.usefixtures("database")

T = TypeVar("T")


def _do(work: Callable[[Session], T]) -> T:
    return compat.in_transaction(work)


def _get(name: str = "default") -> RuntimeRecord:
    record = _do(lambda session: runtimes.get(session, name))
    assert record is not None
    return record


def _state() -> tuple[int, int, int, str]:
    record = _get()
    return record.serial, record.previous, record.percent, record.halted


def test_a_later_build_is_rolled_out_by_a_user_in_steps() -> None:
    build()
    build()
    assert _state() == (1, 0, 100, "")
    assert _do(lambda session: rollouts.roll(session, rollouts.of_runtime("default"), percent=10, by="ann")) == 2
    assert _state() == (2, 1, 10, "")
    _do(lambda session: rollouts.roll(session, rollouts.of_runtime("default"), labels={"site": "lab"}, by="ann"))
    assert _state() == (2, 1, 100, "")
    assert _get().labels == encode_labels({"site": "lab"})
    assert [entry.detail for entry in audit_entries("action")][:2] == [
        'rolled serial 2 of the runtime \'default\' out to 100 % of the workers with {"site":"lab"}',
        "rolled serial 2 of the runtime 'default' out to 10 % of the workers",
    ]


def test_the_fallback_is_the_last_serial_that_all_workers_were_to_have() -> None:
    for _ in range(3):
        build()
    _do(lambda session: rollouts.roll(session, rollouts.of_runtime("default"), by="ann"))
    assert _state()[:2] == (3, 1)
    build()
    _do(lambda session: rollouts.roll(session, rollouts.of_runtime("default"), percent=5, by="ann"))
    assert _state()[:2] == (4, 3)
    build()
    _do(lambda session: rollouts.roll(session, rollouts.of_runtime("default"), by="ann"))
    assert _state()[:2] == (5, 3)


def test_a_halted_rollout_is_resumed_or_replaced() -> None:
    build()
    with pytest.raises(LedgerError, match="no earlier one to go back to"):
        _do(lambda session: rollouts.halt(session, rollouts.of_runtime("default"), by="ann"))
    build()
    _do(lambda session: rollouts.roll(session, rollouts.of_runtime("default"), percent=50, by="ann"))
    with pytest.raises(LedgerError, match="not halted"):
        _do(lambda session: rollouts.resume(session, rollouts.of_runtime("default"), by="ann"))
    _do(lambda session: rollouts.halt(session, rollouts.of_runtime("default"), by="ann", reason="slow\nimports"))
    assert _state() == (2, 1, 50, "by ann: slow imports")
    with pytest.raises(LedgerError, match="halted already"):
        _do(lambda session: rollouts.halt(session, rollouts.of_runtime("default"), by="bob"))
    with pytest.raises(LedgerError, match="--resume"):
        _do(lambda session: rollouts.roll(session, rollouts.of_runtime("default"), by="ann"))
    _do(lambda session: rollouts.resume(session, rollouts.of_runtime("default"), by="ann"))
    assert _state() == (2, 1, 50, "")
    _do(lambda session: rollouts.halt(session, rollouts.of_runtime("default"), by="ann"))
    build()
    _do(lambda session: rollouts.roll(session, rollouts.of_runtime("default"), by="ann"))
    assert _state() == (3, 1, 100, "")


def test_a_rollback_is_a_new_serial_with_the_trees_that_workers_had() -> None:
    build("default", LINUX, WINDOWS)
    build("default", LINUX)
    build("default", LINUX, WINDOWS)
    _do(lambda session: rollouts.roll(session, rollouts.of_runtime("default"), by="ann"))
    assert _do(lambda session: rollouts.roll(session, rollouts.of_runtime("default"), to=2, by="ann")) == 4
    assert _state()[:2] == (4, 3)
    assert edition("default", 4, LINUX) == edition("default", 2, LINUX)
    assert edition("default", 4, WINDOWS) == edition("default", 1, WINDOWS)
    assert build() == 5


def test_what_can_t_be_rolled_out_is_refused_with_the_reason() -> None:
    _do(lambda session: runtimes.next_serial(session, "empty"))
    build()
    for name, options, error, text in (
        ("nope", {}, NotFound, "no runtime named 'nope'"),
        ("empty", {}, LedgerError, "nothing was built of"),
        ("default", {"percent": 101}, LedgerError, "0 to 100 percent"),
        ("default", {"to": 7}, NotFound, "no serial 7 of the runtime 'default'; there are: 1"),
        ("default", {"labels": {"a": "x" * 2000}}, LedgerError, "1000 is the limit"),
    ):
        with pytest.raises(error, match=text):
            _do(lambda session: rollouts.roll(session, rollouts.of_runtime(name), by="ann", **options))  # type: ignore[arg-type]  # noqa: B023
    assert _state() == (1, 0, 100, "")


def test_a_queue_s_runtime_is_set_and_unset() -> None:
    build("gpu")
    _do(lambda session: rollouts.assign_queue(session, "q", "gpu", by="ann"))
    assert _do(runtimes.load_plan).name_for("q") == "gpu"
    with pytest.raises(NotFound):
        _do(lambda session: rollouts.assign_queue(session, "q", "nope", by="ann"))
    with pytest.raises(LedgerError, match="name one queue"):
        _do(lambda session: rollouts.assign_queue(session, "*", "gpu", by="ann"))
    _do(lambda session: queues.unset_queue(session, "q", by="ann"))
    assert _do(runtimes.load_plan).name_for("q") == "default"


def test_every_change_changes_the_versions_of_the_plan() -> None:
    seen = [_do(runtimes.plan_versions)]
    for change in (
        lambda: build(),
        lambda: build(),
        lambda: _do(lambda session: rollouts.roll(session, rollouts.of_runtime("default"), by="ann")),
        lambda: _do(lambda session: rollouts.halt(session, rollouts.of_runtime("default"), by="ann")),
        lambda: _do(lambda session: rollouts.assign_queue(session, "q", "default", by="ann")),
        lambda: _do(lambda session: queues.unset_queue(session, "q", by="ann")),
    ):
        change()
        seen.append(_do(runtimes.plan_versions))
        assert seen[-1] == _do(runtimes.load_plan).versions
        assert seen[-1] not in seen[:-1] or seen[-1] == seen[-3]
    assert len(set(seen)) == len(seen) - 1  # the last change restores the state before the last but one
