"""Requests to restart a worker, which end when another start of the worker opens a session."""

from __future__ import annotations

from datetime import timedelta

import pytest

from testkit.ledger import audit_entries, enlist, session_request, worker_row  # isort: skip

from airflow_remote_provider import compat
from airflow_remote_provider.ledger import restarts, sessions, workers
from airflow_remote_provider.ledger.errors import LedgerError, NotFound
from airflow_remote_provider.ledger.views.workers import show_worker
from airflow_remote_provider.ledger.workers import WorkerRecord

pytestmark = pytest.mark.usefixtures("database")

ABLE = ("task", "restart")


def _ask(name: str = "worker") -> None:
    with compat.transaction() as session:
        restarts.request_restart(session, name, by="ann", reason="new certificate")


def _opened(worker_id: str, boot_id: str = "") -> WorkerRecord:
    with compat.transaction() as session:
        return sessions.open_session(session, worker_id, session_request(boot_id=boot_id, capabilities=ABLE))


def test_a_restart_is_shown_and_audited_until_it_has_happened() -> None:
    worker = enlist(capabilities=ABLE)
    _ask()
    with compat.transaction() as session:
        row = show_worker(session, "worker", silent_after=timedelta(seconds=90))
    assert row.restart_asked_by == "ann" and row.restart_asked_at is not None and not row.intent_heard
    assert audit_entries("action")[0].detail == "requested a restart: new certificate"
    assert _opened(worker.id, worker_row(worker.id).boot_id or "").intent.restart, (
        "the same start, after central lost its session"
    )
    assert not _opened(worker.id).intent.restart
    assert worker_row(worker.id).restart_asked_by is None


def test_a_worker_that_cannot_restart_is_refused() -> None:
    enlist("old")
    revoked = enlist("revoked", capabilities=ABLE)
    with compat.transaction() as session:
        workers.revoke_worker(session, revoked.name)
    for name, why in (("old", "update it"), ("revoked", "central can't restart it")):
        with pytest.raises(LedgerError, match=why):
            _ask(name)
    with pytest.raises(NotFound):
        _ask("nobody")
