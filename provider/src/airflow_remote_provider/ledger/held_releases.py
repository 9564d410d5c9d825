"""The release that each worker runs, as it reports it. A failure halts the rollout.

Locks are taken in this order: the row of the release, then the row of the worker.
"""

from __future__ import annotations

from typing import Any

from airflow_remote_protocol.messages import HeldRelease, ReleasePhase
from sqlalchemy import select
from sqlalchemy.orm import Session

from airflow_remote_provider.ledger import releases, runtimes
from airflow_remote_provider.ledger.assignments import release_host_of
from airflow_remote_provider.ledger.audit import record_action
from airflow_remote_provider.ledger.changes import stamp
from airflow_remote_provider.ledger.errors import Revoked
from airflow_remote_provider.ledger.held_runtimes import LONGEST_DETAIL
from airflow_remote_provider.ledger.presentable import presentable
from airflow_remote_provider.ledger.wakeup import Topic, wake
from airflow_remote_provider.ledger.workers import WorkerRecord, record_of
from airflow_remote_provider.models import Worker

Held = dict[str, Any]
"""The fields of :class:`HeldRelease`; `runs`: the tree that runs, empty: the installed release; `failed`: the newest serial that
has failed at the worker, which halts no rollout twice, and 0 for none; `reason`: why it failed."""


def note(session: Session, worker_id: str, held: HeldRelease | None, *, running: str) -> WorkerRecord | None:
    """Store what a worker reports of its release; halt the rollout if that has just failed there.

    Return the worker if what it runs has changed. Nothing is stored of a worker that takes no releases.

    Raises:
        Revoked: the worker was removed.
    """
    is_failed = held is not None and held.phase is ReleasePhase.FAILED
    row = releases.find_locked(session) if is_failed else None
    worker = session.scalar(select(Worker).where(Worker.id == worker_id).with_for_update())
    if worker is None:
        raise Revoked("this worker was removed; join again with a new enrolment token")
    host, before = release_host_of(worker), worker.release or {}
    if host is None:
        return None
    failed, reason = before.get("failed", 0), before.get("reason", "")
    if held is not None and is_failed and held.serial > failed:
        failed, reason = held.serial, presentable(held.detail, longest=LONGEST_DETAIL)
        reason = reason or "it failed; the worker's log has more"
        if row is not None and row.serial == held.serial and not row.halted:
            row.halted = f"worker {worker.name}: {reason}"
            record_action(session, "central", f"halted serial {row.serial} of the worker's releases: {row.halted}", worker=worker)
            runtimes.note_change(session, row, "central")
    now = {**_as_held(held), "runs": running, "failed": failed, "reason": reason}
    if now == before:
        return None
    worker.release = now
    if release_host_of(worker) == host:
        return None
    worker.changed_at = stamp(session)
    wake(session, Topic.WORKER)
    return record_of(worker)


def _as_held(held: HeldRelease | None) -> Held:
    if held is None:
        return {"serial": 0, "tree": "", "phase": "", "detail": ""}
    detail = presentable(held.detail, longest=LONGEST_DETAIL)
    return {"serial": held.serial, "tree": held.tree, "phase": held.phase.value, "detail": detail}
