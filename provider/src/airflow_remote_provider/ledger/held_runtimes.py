"""The runtimes from central that workers report: what is ready, and why a worker has none. A failure halts its rollout.

Locks are taken in this order: rows of runtimes by name, then the row of the worker.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from airflow_remote_protocol.messages import HeldRuntime, RuntimePhase, RuntimeRef
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from airflow_remote_provider.agreement import explain_mismatch
from airflow_remote_provider.compat import airflow_version
from airflow_remote_provider.ledger import runtimes
from airflow_remote_provider.ledger.assignments import Host, Plan, assign, fallback, host_of, ready_trees, usable
from airflow_remote_provider.ledger.audit import record_action
from airflow_remote_provider.ledger.changes import stamp
from airflow_remote_provider.ledger.errors import Revoked
from airflow_remote_provider.ledger.presentable import presentable
from airflow_remote_provider.ledger.trees import RUNTIME
from airflow_remote_provider.ledger.wakeup import Topic, wake
from airflow_remote_provider.ledger.workers import WorkerRecord, record_of
from airflow_remote_provider.models import Edition, RuntimeRow, Worker

Held = dict[str, str]
"""A runtime as a worker reported it: the fields of :class:`HeldRuntime`, and `mismatch`: why it does not suit this central."""

LONGEST_DETAIL = 500
"""Characters of a progress or a reason that are stored. API processes keep the rows of workers in memory."""
NOT_REPORTED = "it takes its runtime from central, and has not reported any yet"


def note(session: Session, worker_id: str, reported: Sequence[HeldRuntime]) -> WorkerRecord | None:
    """Store which runtimes a worker has; halt the rollout of one that has failed there, if the worker was to have it.

    A worker halts the rollout of each serial once only: the user who resumes it has decided about this worker.

    Return the worker if what it has ready has changed. Digests of no runtime are ignored, and so is everything if the worker
    takes no runtimes from central.

    Raises:
        Revoked: the worker was removed.
    """
    held = [_as_held(one) for one in {one.tree: one for one in reversed(reported)}.values()][::-1]
    names = _names_of(session, [one["tree"] for one in held])
    held = [one for one in held if one["tree"] in names]
    failed = {one["tree"] for one in held if _reason(one)}
    rows = _lock_runtimes(session, {name for tree in failed for name in names[tree]})
    worker = session.scalar(select(Worker).where(Worker.id == worker_id).with_for_update())
    if worker is None:
        raise Revoked("this worker was removed; join again with a new enrolment token")
    host = host_of(worker)
    if host is None or held == worker.runtimes:
        return None
    known = {one["tree"] for one in worker.runtimes or () if _reason(one)}
    plan = runtimes.load_plan(session)
    for one in held:
        if one["tree"] in failed - known:
            _halt(session, rows, worker, [ref for ref in assign(plan, host).wanted if fallback(plan, host, ref.name)], one)
    is_changed = _store(session, runtimes.load_plan(session) if failed - known else plan, worker, held)
    return record_of(worker) if is_changed else None


def judge_again(session: Session, judged: tuple[object, ...] | None) -> tuple[object, ...] | None:
    """Judge all workers again if something has changed since *judged*, the result of the last call; None: for the first time.

    The reason why a worker has no runtime also depends on rollouts, and on the worker's queues and labels.
    """
    state = runtimes.plan_versions(session), session.scalar(select(func.max(Worker.changed_at)))
    if state == judged:
        return judged
    columns = (
        Worker.id,
        Worker.facts,
        Worker.queues,
        Worker.labels,
        Worker.capabilities,
        Worker.runtimes,
        Worker.unfit,
    )
    plan = runtimes.load_plan(session)
    others = []
    for row in session.execute(select(*columns).where(Worker.revoked_at.is_(None))):
        host = host_of(row)
        if host is not None and (_judged(row.runtimes) != row.runtimes or explain(plan, host, row.runtimes) != (row.unfit or "")):
            others.append(row.id)
    for worker in session.scalars(select(Worker).where(Worker.id.in_(others)).order_by(Worker.id).with_for_update()):
        if host_of(worker) is not None:
            _store(session, plan, worker, _judged(worker.runtimes))
    return state


def explain(plan: Plan, host: Host, held: Sequence[Held] | None) -> str:
    """Return why *host* can run no job of any of its queues; empty: it can run some."""
    if any(usable(plan, host, queue) is not None for queue in host.queues):
        return ""
    return "; ".join(dict.fromkeys(explain_queue(plan, host, held, queue) for queue in host.queues)) or NOT_REPORTED


def explain_queue(plan: Plan, host: Host, held: Sequence[Held] | None, queue: str) -> str:
    """Return why *host* has no runtime for jobs of *queue* ready; empty: it has one."""
    if usable(plan, host, queue) is not None:
        return ""
    return explain_name(plan, host, held, plan.name_for(queue))


def explain_name(plan: Plan, host: Host, held: Sequence[Held] | None, name: str) -> str:
    """Return why *host* does not have the runtime ready that it is to have of this *name*."""
    found = assign(plan, host)
    if name in found.missing:
        return found.missing[name]
    ref = next((one for one in found.wanted if one.name == name), None)
    if ref is None:
        return f"it serves queues with too many runtimes; the runtime {name!r} is not among those that it is to have"
    what = f"serial {ref.serial} of the runtime {name!r}"
    mine = next((one for one in held or () if one["tree"] == ref.tree.digest), None)
    if mine is None:
        return f"the worker has not begun to prepare {what}"
    if reason := _reason(mine):
        return f"{what} is not usable: {reason}"
    return f"{what} is being prepared{' (' + mine['detail'] + ')' if mine['detail'] else ''}"


def _as_held(one: HeldRuntime) -> Held:
    held = {
        "tree": one.tree,
        "phase": one.phase.value,
        "airflow": presentable(one.airflow, longest=50),
        "task_sdk": presentable(one.task_sdk, longest=50),
        "python": presentable(one.python, longest=50),
        "detail": presentable(one.detail, longest=LONGEST_DETAIL),
    }
    return {**held, "mismatch": _mismatch(held)}


def _mismatch(held: Mapping[str, str]) -> str:
    if held["phase"] != RuntimePhase.READY.value:
        return ""
    remedy = "build the runtime again for this central (airflow remote runtimes build)"
    return explain_mismatch(airflow_version(), task_sdk=held["task_sdk"], airflow=held["airflow"], remedy=remedy)


def _judged(held: Sequence[Held] | None) -> list[Held] | None:
    """Return *held*, judged by the version of this central."""
    return None if held is None else [{**one, "mismatch": _mismatch(one)} for one in held]


def _reason(one: Held) -> str:
    """Return why a runtime can't be used; empty: it can, or is being prepared."""
    if one["phase"] == RuntimePhase.FAILED.value:
        return one["detail"] or "it failed, and the worker gave no reason; the worker's log has more"
    return one["mismatch"]


def _names_of(session: Session, digests: Collection[str]) -> dict[str, list[str]]:
    """Return the names of the runtimes that have these trees."""
    if not digests:
        return {}
    query = select(Edition.tree, Edition.name).where(Edition.kind == RUNTIME, Edition.tree.in_(digests)).distinct()
    found: dict[str, list[str]] = {}
    for row in session.execute(query):
        found.setdefault(row.tree or "", []).append(row.name)
    return found


def _lock_runtimes(session: Session, names: Collection[str]) -> dict[str, RuntimeRow]:
    """Lock those of these runtimes whose rollout could be halted."""
    if not names:
        return {}
    query = select(RuntimeRow).where(RuntimeRow.name.in_(names), RuntimeRow.halted == "", RuntimeRow.previous > 0)
    rows = session.scalars(query.order_by(RuntimeRow.name).with_for_update().execution_options(populate_existing=True))
    return {row.name: row for row in rows}


def _halt(session: Session, rows: Mapping[str, RuntimeRow], worker: Worker, wanted: Sequence[RuntimeRef], failed: Held) -> None:
    """Halt the rollouts by which *worker* is to have this runtime, so that the other workers have the previous one.

    *wanted* are those for which it has an earlier one.
    """
    for ref in wanted:
        before = worker.failed_runtimes or {}
        if ref.tree.digest != failed["tree"] or ref.serial <= before.get(ref.name, 0):
            continue
        worker.failed_runtimes = {**before, ref.name: ref.serial}
        row = rows.get(ref.name)
        if row is None or ref.serial != row.serial:
            continue
        row.halted = f"worker {worker.name}: {_reason(failed)}"
        record_action(session, "central", f"halted serial {row.serial} of the runtime {row.name}: {row.halted}", worker=worker)
        runtimes.note_change(session, row, "central")


def _store(session: Session, plan: Plan, worker: Worker, held: list[Held] | None) -> bool:
    """Store what a worker has, and why it has no usable runtime. Return whether what is ready has changed.

    The API processes are woken then.
    """
    before, after = ready_trees(worker.runtimes), ready_trees(held)
    worker.runtimes = held
    host = host_of(worker)
    worker.unfit = (explain(plan, host, held) if host is not None else "") or None
    if before == after:
        return False
    worker.changed_at = stamp(session)
    wake(session, Topic.WORKER)
    if after - before:
        wake(session, Topic.QUEUED)
    return True
