"""The client certificate that a worker is bound to: the one it joined with, or the one of its next session."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from airflow_remote_provider.compat import database_now
from airflow_remote_provider.ledger.audit import AuditKind, Event, record, record_action
from airflow_remote_provider.ledger.changes import stamp
from airflow_remote_provider.ledger.wakeup import Topic, wake
from airflow_remote_provider.ledger.workers import find_worker
from airflow_remote_provider.models import Worker


def flag_wrong_certificate(session: Session, worker_id: str, whose: str) -> None:
    """Flag a worker whose credential was used with another certificate than its own; one audit entry a day."""
    worker = session.scalar(select(Worker).where(Worker.id == worker_id).with_for_update())
    if worker is None:
        return
    now = database_now(session)
    text = (
        f"its credential was used with another client certificate ({whose}) and refused; "
        f"the worker is bound to {worker.certificate}"
    )
    worker.alarm = f"{now:%Y-%m-%d %H:%M} UTC: {text}"
    cause = f"{worker.id} {now:%Y-%m-%d}"
    record(session, Event(AuditKind.CERTIFICATE, cause, text, actor="worker", worker_id=worker.id, worker_name=worker.name))


def rebind(session: Session, name: str, *, by: str) -> None:
    """Clear the certificate that the worker is bound to; its next session binds it to the one it uses then."""
    worker = find_worker(session, name)
    worker.certificate, worker.session_id = None, None
    worker.changed_at = stamp(session)
    record_action(session, by, "released the worker from its client certificate; the next session binds it again", worker=worker)
    wake(session, Topic.WORKER)
