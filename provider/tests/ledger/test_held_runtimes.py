"""The runtimes that workers report, and what one worker's report can change."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import pytest
from sqlalchemy.orm import Session

from testkit.ledger import Enlisted, audit_entries, change_worker, claim, enlist, queued, session_request, worker_row  # isort: skip

from airflow_remote_protocol.messages import HeldRuntime, RuntimePhase
from airflow_remote_provider import compat
from airflow_remote_provider.ledger import held_runtimes, rollouts, runtimes, sessions, workers
from airflow_remote_provider.ledger.assignments import bucket, ready_trees
from airflow_remote_provider.ledger.errors import Revoked

from testkit.runtimes import LINUX, WINDOWS, build, edition

pytestmark = pytest.mark.usefixtures("database")

T = TypeVar("T")
READY, FAILED, PREPARING = RuntimePhase.READY, RuntimePhase.FAILED, RuntimePhase.PREPARING


@pytest.fixture(autouse=True)
def _central_is_3_3(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(held_runtimes, "airflow_version", lambda: "3.3.2")


def _do(work: Callable[[Session], T]) -> T:
    return compat.in_transaction(work)


def _enlist(name: str = "worker", **options: Any) -> Enlisted:
    return enlist(name, capabilities=("task", "runtimes"), **{"platform": LINUX, **options})


def _report(worker: Enlisted, phases: Mapping[str, RuntimePhase], **fields: str) -> None:
    held = [HeldRuntime(tree, phase, **fields) for tree, phase in phases.items()]
    _do(lambda session: held_runtimes.note(session, worker.id, held))


def _unfit(worker: Enlisted) -> str:
    return worker_row(worker.id).unfit or ""


def _halted(name: str = "default") -> str:
    record = _do(lambda session: runtimes.get(session, name))
    assert record is not None
    return record.halted


def _roll(**options: Any) -> None:
    _do(lambda session: rollouts.roll(session, rollouts.of_runtime("default"), by="ann", **options))


def test_a_worker_is_unfit_with_the_reason_until_a_runtime_is_ready() -> None:
    worker = _enlist()
    assert _unfit(worker) == held_runtimes.NOT_REPORTED
    build()
    tree = edition("default", 1)
    _report(worker, {tree: PREPARING}, detail="code 43 %")
    assert _unfit(worker) == "serial 1 of the runtime 'default' is being prepared (code 43 %)"
    _report(worker, {tree: FAILED}, detail="disk full")
    assert _unfit(worker) == "serial 1 of the runtime 'default' is not usable: disk full"
    _report(worker, {tree: READY}, task_sdk="1.3.2", airflow="3.3.2", python="3.11.9")
    assert _unfit(worker) == ""
    assert worker_row(worker.id).runtimes == [
        {
            "tree": tree,
            "phase": "ready",
            "airflow": "3.3.2",
            "task_sdk": "1.3.2",
            "python": "3.11.9",
            "detail": "",
            "mismatch": "",
        }
    ]


def test_a_platform_without_an_edition_names_the_command() -> None:
    build()
    worker = _enlist(platform=WINDOWS)
    _report(worker, {edition("default", 1): PREPARING})
    assert f"airflow remote runtimes build default --platform {WINDOWS}" in _unfit(worker)


def test_a_runtime_of_another_task_sdk_is_not_ready_and_counts_again_after_central_s_upgrade(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    build()
    worker = _enlist()
    _report(worker, {edition("default", 1): READY}, task_sdk="1.5.0", airflow="3.5.0")
    assert "the Task SDK 1.5.0 (Airflow 3.5.0)" in _unfit(worker)
    assert "build the runtime again for this central (airflow remote runtimes build)" in _unfit(worker)
    assert workers.record_of(worker_row(worker.id)).host.ready == frozenset()  # type: ignore[union-attr]
    monkeypatch.setattr(held_runtimes, "airflow_version", lambda: "3.5.0")
    before = worker_row(worker.id).changed_at
    judged = _do(lambda session: held_runtimes.judge_again(session, None))
    assert _unfit(worker) == ""
    assert worker_row(worker.id).changed_at > before
    again = _do(lambda session: held_runtimes.judge_again(session, judged))
    assert _do(lambda session: held_runtimes.judge_again(session, again)) == again


def test_the_reason_follows_builds_and_queues() -> None:
    worker = _enlist()
    _report(worker, {})
    judged = _do(lambda session: held_runtimes.judge_again(session, None))
    build()
    judged = _do(lambda session: held_runtimes.judge_again(session, judged))
    assert _unfit(worker) == "the worker has not begun to prepare serial 1 of the runtime 'default'"
    _report(worker, {edition("default", 1): READY})
    build("gpu")
    _do(lambda session: rollouts.assign_queue(session, "q", "gpu", by="ann"))
    judged = _do(lambda session: held_runtimes.judge_again(session, judged))
    assert _unfit(worker) == "the worker has not begun to prepare serial 1 of the runtime 'gpu'"
    _do(lambda session: workers.set_queues(session, "worker", ["q", "other"], by="ann"))
    _do(lambda session: held_runtimes.judge_again(session, judged))
    assert _unfit(worker) == ""


def test_the_first_failure_of_a_rolled_serial_halts_its_rollout() -> None:
    worker, other = _enlist(), _enlist("other")
    build()
    build()
    _roll()
    new = edition("default", 2)
    _report(worker, {new: FAILED}, detail="libfoo.so is missing")
    assert _halted() == "worker worker: libfoo.so is missing"
    (entry,) = [entry for entry in audit_entries("action") if "halted" in entry.detail]
    assert (entry.worker, entry.detail) == (
        "worker",
        "halted serial 2 of the runtime default: worker worker: libfoo.so is missing",
    )
    _report(other, {new: FAILED}, detail="another")
    assert _halted() == "worker worker: libfoo.so is missing"
    plan = _do(runtimes.load_plan)
    record = workers.record_of(worker_row(other.id))
    assert record.host is not None
    assert [ref.serial for ref in held_runtimes.assign(plan, record.host).wanted] == [1]


def test_a_worker_halts_the_rollout_of_a_serial_once_only() -> None:
    worker, other = _enlist(), _enlist("other")
    build()
    build()
    _roll()
    new, old = edition("default", 2), edition("default", 1)
    _report(worker, {new: FAILED}, detail="no")
    _do(lambda session: rollouts.resume(session, rollouts.of_runtime("default"), by="ann"))
    _report(worker, {new: FAILED, old: PREPARING}, detail="no")
    assert _halted() == ""
    _report(worker, {new: PREPARING, old: READY})
    _report(worker, {new: FAILED, old: READY}, detail="again")
    assert _halted() == "", "the user who resumed it has decided about this worker"
    request = session_request(capabilities=("task", "runtimes"), platform=LINUX)
    _do(lambda session: sessions.open_session(session, worker.id, request))
    _report(worker, {new: FAILED}, detail="after a restart")
    assert _halted() == ""
    _report(other, {new: FAILED}, detail="here, too")
    assert _halted() == "worker other: here, too"
    build()
    _roll()
    _report(worker, {edition("default", 3): FAILED}, detail="the next one")
    assert _halted() == "worker worker: the next one"


def test_a_mismatch_halts_as_a_failure_does() -> None:
    worker = _enlist()
    build()
    build()
    _roll()
    _report(worker, {edition("default", 2): READY}, task_sdk="1.9.0")
    assert "the Task SDK 1.9.0" in _halted()


def test_the_first_serial_is_not_halted() -> None:
    worker = _enlist()
    build()
    _report(worker, {edition("default", 1): FAILED}, detail="no")
    assert _halted() == ""
    assert _unfit(worker) == "serial 1 of the runtime 'default' is not usable: no"


def test_a_failure_on_a_platform_without_an_earlier_edition_halts_nothing() -> None:
    build("default", LINUX)
    build("default", LINUX, WINDOWS)
    _roll()
    worker = _enlist(platform=WINDOWS)
    _report(worker, {edition("default", 2, WINDOWS): FAILED}, detail="no DLL")
    assert _halted() == ""
    assert _unfit(worker) == "serial 2 of the runtime 'default' is not usable: no DLL"


# What one worker's credential can't do


def test_a_worker_that_is_not_to_have_the_rolled_serial_can_t_halt_it() -> None:
    worker = _enlist()
    build()
    build()
    _roll(percent=bucket(worker.id, "default"))  # one less than would include it
    _report(worker, {edition("default", 2): FAILED}, detail="I say so")
    assert _halted() == ""
    _roll(labels={"site": "lab"})
    _report(worker, {edition("default", 2): PREPARING})
    _report(worker, {edition("default", 2): FAILED}, detail="I say so")
    assert _halted() == ""


def test_a_worker_can_t_halt_by_another_platform_an_old_serial_or_another_queue_s_runtime() -> None:
    worker = _enlist()
    build("default", LINUX, WINDOWS)
    build("default", LINUX, WINDOWS)
    _roll()
    build("gpu")
    build("gpu")
    _do(lambda session: rollouts.roll(session, rollouts.of_runtime("gpu"), by="ann"))
    _report(
        worker,
        {edition("default", 2, WINDOWS): FAILED, edition("default", 1): FAILED, edition("gpu", 2): FAILED},
        detail="I say so",
    )
    assert (_halted(), _halted("gpu")) == ("", "")


def test_a_worker_without_the_capability_changes_nothing() -> None:
    worker = enlist("site")
    build()
    build()
    _roll()
    _report(worker, {edition("default", 2): FAILED}, detail="I say so")
    assert _halted() == ""
    assert (worker_row(worker.id).runtimes, worker_row(worker.id).unfit) == (None, None)


def test_unknown_digests_are_not_stored_and_texts_are_made_harmless_and_short() -> None:
    worker = _enlist()
    build()
    tree = edition("default", 1)
    hostile = "\x1b[31m\N{RIGHT-TO-LEFT OVERRIDE}\n" + "x" * 1900
    _report(worker, {**{f"{n:064x}": READY for n in range(49)}, tree: FAILED}, detail=hostile, airflow="\x00")
    (held,) = worker_row(worker.id).runtimes or []
    assert held["tree"] == tree
    assert len(held["detail"]) == 500
    assert held["detail"].isprintable() and held["airflow"].isprintable()
    assert _unfit(worker).isprintable()


def test_the_same_report_again_writes_nothing() -> None:
    worker = _enlist()
    build()
    _report(worker, {edition("default", 1): READY})
    before = worker_row(worker.id).changed_at
    _report(worker, {edition("default", 1): READY})
    assert worker_row(worker.id).changed_at == before
    _report(worker, {edition("default", 1): READY}, detail="canary 1.2 s")
    assert worker_row(worker.id).changed_at == before  # what is ready has not changed


def test_a_removed_worker_is_refused() -> None:
    with pytest.raises(Revoked):
        _do(lambda session: held_runtimes.note(session, "nobody", []))


def test_a_session_without_the_capability_clears_the_reports_and_one_with_it_keeps_them() -> None:
    worker = _enlist()
    build()
    _report(worker, {edition("default", 1): READY})
    for capabilities, ready in ((("task", "runtimes"), 1), (("task",), 0)):
        boot = worker_row(worker.id).boot_id or ""
        request = session_request(boot_id=boot, capabilities=capabilities, platform=LINUX)
        record = _do(lambda session: sessions.open_session(session, worker.id, request))  # noqa: B023
        assert len(ready_trees(worker_row(worker.id).runtimes)) == ready
        assert record.unfit == ""
    change_worker(worker.id, runtimes=None)
    queued()
    assert len(claim(worker.claimant())) == 0  # another session by now
