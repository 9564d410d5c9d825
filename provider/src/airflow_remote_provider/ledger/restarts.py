"""Restarts: people want a worker's daemon to start anew. The wish has come true once another start of it has opened a session."""

from __future__ import annotations

from airflow_remote_protocol.version import Capability
from sqlalchemy.orm import Session

from airflow_remote_provider.compat import database_now
from airflow_remote_provider.ledger.audit import acted
from airflow_remote_provider.ledger.changes import stamp
from airflow_remote_provider.ledger.errors import LedgerError
from airflow_remote_provider.ledger.wakeup import Topic, wake
from airflow_remote_provider.ledger.workers import find_worker


def ask_to_restart(session: Session, name: str, *, by: str, reason: str = "") -> None:
    """Have the worker's daemon start anew, once, as soon as it hears of it. Its jobs run on.

    Raises:
        LedgerError: it can't: it never came, is revoked, or is of a version that does not know of restarts.
    """
    worker = find_worker(session, name)
    if worker.revoked_at is not None:
        raise LedgerError(f"worker {name!r} is revoked and hears nothing any more; nothing was changed")
    if Capability.RESTART.value not in (worker.capabilities or ()):
        raise LedgerError(f"worker {name!r} can't start itself anew; update it, or restart it where it stands")
    worker.restart_asked_at, worker.restart_asked_by = database_now(session), by
    worker.intent_revision += 1
    worker.changed_at = stamp(session)
    acted(session, by, f"wants it to start anew{': ' + reason if reason else ''}", worker)
    wake(session, Topic.WORKER)
