"""The runtimes that workers report, and whether they can host tasks of this central."""

from __future__ import annotations

from collections.abc import Mapping

from airflow_remote_protocol.messages import MAX_SHORT_TEXT, Runtime
from airflow_remote_protocol.version import Capability
from sqlalchemy import select
from sqlalchemy.orm import Session

from airflow_remote_provider.agreement import explain_mismatch
from airflow_remote_provider.compat import airflow_version
from airflow_remote_provider.ledger.changes import stamp
from airflow_remote_provider.ledger.errors import Revoked
from airflow_remote_provider.ledger.presentable import presentable
from airflow_remote_provider.ledger.wakeup import Topic, wake
from airflow_remote_provider.models import Worker


def note(session: Session, worker_id: str, runtime: Runtime) -> str:
    """Store the runtime that a worker reported; return why it gets no jobs, empty if it gets jobs.

    Raises:
        Revoked: the worker was removed.
    """
    worker = session.scalar(select(Worker).where(Worker.id == worker_id).with_for_update())
    if worker is None:
        raise Revoked("this worker was removed; join again with a new enrolment token")
    worker.runtime = {
        "airflow": presentable(runtime.airflow, longest=50),
        "task_sdk": presentable(runtime.task_sdk, longest=50),
        "python": presentable(runtime.python, longest=50),
        "trouble": presentable(runtime.trouble, longest=MAX_SHORT_TEXT),
    }
    _judge(session, worker)
    return worker.unfit or ""


def judge_again(session: Session) -> None:
    """Judge all stored runtimes by this central's version; they may have been reported to another version."""
    rows = session.execute(select(Worker.id, Worker.runtime, Worker.unfit).where(Worker.runtime.is_not(None)))
    others = [row.id for row in rows if _verdict(row.runtime) != row.unfit]
    for worker in session.scalars(select(Worker).where(Worker.id.in_(others)).order_by(Worker.id).with_for_update()):
        _judge(session, worker)


def _verdict(reported: Mapping[str, str] | None) -> str | None:
    if not reported:
        return None
    return (
        reported["trouble"]
        or explain_mismatch(airflow_version(), task_sdk=reported["task_sdk"], airflow=reported["airflow"])
        or None
    )


def _judge(session: Session, worker: Worker) -> None:
    if Capability.RUNTIMES.value in (worker.capabilities or ()):
        return  # it hosts tasks in runtimes from central, which are judged one by one
    unfit = _verdict(worker.runtime)
    if unfit != worker.unfit:
        worker.unfit = unfit
        worker.changed_at = stamp(session)
        wake(session, Topic.WORKER)
        wake(session, Topic.QUEUED)
