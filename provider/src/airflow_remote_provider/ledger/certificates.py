"""Which client certificate a worker is bound to: the one it joined with, or else opened its next session with."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from airflow_remote_provider.compat import database_now
from airflow_remote_provider.ledger.audit import AuditKind, Event, acted, record
from airflow_remote_provider.ledger.changes import stamp
from airflow_remote_provider.ledger.wakeup import Topic, wake
from airflow_remote_provider.ledger.workers import find_worker
from airflow_remote_provider.models import Worker


def note_strange(session: Session, worker_id: str, whose: str) -> None:
    """Flag a worker whose credential was used with another certificate than its own: a row a day, however often."""
    worker = session.scalar(select(Worker).where(Worker.id == worker_id).with_for_update())
    if worker is None:
        return
    now = database_now(session)
    text = f"its credential was used with another client certificate ({whose}) and refused; its own is {worker.certificate}"
    worker.alarm = f"{now:%Y-%m-%d %H:%M} UTC: {text}"
    cause = f"{worker.id} {now:%Y-%m-%d}"
    record(session, Event(AuditKind.CERTIFICATE, cause, text, actor="worker", worker_id=worker.id, worker_name=worker.name))


def rebind(session: Session, name: str, *, by: str) -> None:
    """Forget which certificate the worker is bound to; the one that it opens its next session with takes its place."""
    worker = find_worker(session, name)
    worker.certificate, worker.session_id = None, None
    worker.changed_at = stamp(session)
    acted(session, by, "lets it be bound to another client certificate", worker)
    wake(session, Topic.WORKER)
