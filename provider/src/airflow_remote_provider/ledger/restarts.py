"""Restarts of a worker's daemon at the request of a user. The request ends once another start of the daemon opens a session."""

from __future__ import annotations

from airflow_remote_protocol.version import Capability
from sqlalchemy.orm import Session

from airflow_remote_provider.compat import database_now
from airflow_remote_provider.ledger.audit import record_action
from airflow_remote_provider.ledger.changes import stamp
from airflow_remote_provider.ledger.errors import LedgerError
from airflow_remote_provider.ledger.wakeup import Topic, wake
from airflow_remote_provider.ledger.workers import find_worker


def request_restart(session: Session, name: str, *, by: str, reason: str = "") -> None:
    """Request the worker's daemon to restart, once, as soon as it receives the request. Its jobs keep running.

    Raises:
        LedgerError: the worker never connected, is revoked, or has a version without restarts.
    """
    worker = find_worker(session, name)
    if worker.revoked_at is not None:
        raise LedgerError(f"worker {name!r} is revoked, so central can't restart it; nothing was changed")
    if Capability.RESTART.value not in (worker.capabilities or ()):
        raise LedgerError(f"worker {name!r} can't restart itself; update it, or restart it on its machine")
    worker.restart_asked_at, worker.restart_asked_by = database_now(session), by
    worker.intent_revision += 1
    worker.changed_at = stamp(session)
    record_action(session, by, f"requested a restart{': ' + reason if reason else ''}", worker=worker)
    wake(session, Topic.WORKER)
