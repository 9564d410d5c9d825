"""Suspended workers."""

from __future__ import annotations

from datetime import timedelta

import pytest

from testkit.ledger import Enlisted, audit_entries, claim, enlist, job_row, queued, running, session_request, worker_row  # isort: skip

from airflow_remote_protocol.tokens import hash_token
from airflow_remote_provider import compat
from airflow_remote_provider.ledger import rotation, sessions, suspension, workers
from airflow_remote_provider.ledger.errors import LedgerError, Suspended

pytestmark = pytest.mark.usefixtures("database")

LIFE = timedelta(days=30)


def _issue(worker: Enlisted, presented: str | None = None) -> str:
    with compat.transaction() as session:
        return rotation.issue(session, worker.id, hash_token(presented or worker.credential), life=LIFE)[0]


def _actors(worker: Enlisted) -> list[str]:
    return sorted(entry.actor for entry in audit_entries("action") if entry.worker == worker.name)


def test_a_suspended_worker_gets_no_session_and_no_offer_and_keeps_its_jobs() -> None:
    worker = enlist()
    lease = running(worker)
    with compat.transaction() as session:
        suspension.suspend(session, worker.name, by="ann", reason="odd traffic")
    with compat.transaction() as session, pytest.raises(Suspended, match="unsuspend"):
        sessions.open_session(session, worker.id, session_request())
    with pytest.raises(Suspended):
        _issue(worker)
    queued()
    assert claim(worker.claimant(5)) == []
    assert job_row(lease.job_id).state == "running"
    assert "odd traffic" in worker_row(worker.id).alarm
    with compat.transaction() as session:
        suspension.unsuspend(session, worker.name, by="bob")
    assert (worker_row(worker.id).suspended_at, worker_row(worker.id).alarm) == (None, "")
    assert _actors(worker) == ["ann", "bob"]


def test_only_a_suspended_worker_can_be_unsuspended() -> None:
    worker = enlist()
    with compat.transaction() as session, pytest.raises(LedgerError, match="not suspended"):
        suspension.unsuspend(session, worker.name, by="me")


@pytest.mark.parametrize("verb", [suspension.suspend, suspension.unsuspend])
def test_a_revoked_worker_is_neither_suspended_nor_unsuspended(verb: object) -> None:
    worker = enlist()
    with compat.transaction() as session:
        workers.revoke_worker(session, worker.name, by="me")
    with compat.transaction() as session, pytest.raises(LedgerError, match="revoked permanently"):
        verb(session, worker.name, by="me")  # type: ignore[operator]
