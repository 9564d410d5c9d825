"""Suspends workers: a suspended worker keeps its jobs, and its calls are refused until an administrator lifts the suspension."""

from __future__ import annotations

from sqlalchemy.orm import Session

from airflow_remote_provider.compat import database_now
from airflow_remote_provider.ledger.audit import record_action
from airflow_remote_provider.ledger.changes import stamp
from airflow_remote_provider.ledger.errors import LedgerError
from airflow_remote_provider.ledger.rotation import credentialed_worker
from airflow_remote_provider.ledger.wakeup import Topic, wake


def suspend(session: Session, name: str, *, by: str, reason: str = "") -> None:
    """Refuse the worker until the suspension is lifted. Its jobs keep running until they are lost."""
    worker = credentialed_worker(session, name)
    now = database_now(session)
    worker.suspended_at, worker.session_id = worker.suspended_at or now, None
    worker.alarm = f"{now:%Y-%m-%d %H:%M} UTC: suspended by {by}{': ' + reason if reason else ''}"
    worker.changed_at = stamp(session)
    record_action(session, by, f"suspended the worker{': ' + reason if reason else ''}", worker=worker)
    wake(session, Topic.WORKER)


def unsuspend(session: Session, name: str, *, by: str) -> None:
    """Lift the suspension, and clear the alarm.

    Raises:
        LedgerError: the worker isn't suspended.
    """
    worker = credentialed_worker(session, name)
    if worker.suspended_at is None:
        raise LedgerError(f"worker {name!r} is not suspended; nothing was changed")
    worker.suspended_at, worker.alarm = None, ""
    worker.changed_at = stamp(session)
    record_action(session, by, "lifted the suspension", worker=worker)
    wake(session, Topic.WORKER)
