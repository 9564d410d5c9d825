"""Rotation of credentials: a worker always has a valid one, and the use of a replaced one is detected."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import Engine, text

from testkit.ledger import Enlisted, ago, audit_entries, enlist, worker_row  # isort: skip

from airflow_remote_protocol.tokens import TokenKind, check_token, hash_token
from airflow_remote_provider import compat
from airflow_remote_provider.ledger import rotation, workers
from airflow_remote_provider.ledger.errors import Expired, LedgerError, RetryLater, Revoked
from airflow_remote_provider.ledger.workers import WorkerRecord
from airflow_remote_provider.models import Base, Worker

pytestmark = pytest.mark.usefixtures("database")

LIFE = timedelta(days=30)


def _issue(worker: Enlisted, presented: str | None = None) -> str:
    with compat.transaction() as session:
        return rotation.issue(session, worker.id, hash_token(presented or worker.credential), life=LIFE)[0]


def _adopt(worker: Enlisted, credential: str) -> WorkerRecord:
    with compat.transaction() as session:
        return rotation.adopt(session, worker.id, hash_token(credential))


def _past(worker: Enlisted, credential: str, *, suspend: bool = False) -> bool:
    with compat.transaction() as session:
        return rotation.check_replaced(session, worker.id, hash_token(credential), source="10.0.0.7", suspend=suspend)[1]


def _change(worker: Enlisted, **values: object) -> None:
    with compat.transaction() as session:
        row = session.get(Worker, worker.id)
        for name, value in values.items():
            setattr(row, name, value)


def _actors(worker: Enlisted) -> list[str]:
    return sorted(entry.actor for entry in audit_entries("action") if entry.worker == worker.name)


def test_the_next_credential_becomes_the_worker_s_own_at_its_first_use() -> None:
    worker = enlist()
    new = _issue(worker)
    check_token(TokenKind.WORKER, new)
    assert worker_row(worker.id).credential_hash == hash_token(worker.credential)
    record = _adopt(worker, new)
    assert (record.credential_hash, record.next_hash, record.past_hash) == (hash_token(new), None, hash_token(worker.credential))
    assert record.expires_at is not None and record.issued_at is not None and record.expires_at - record.issued_at == LIFE
    [entry] = audit_entries("rotated")
    assert (entry.worker, entry.actor) == (worker.name, "worker")


def test_a_worker_is_found_by_each_of_its_credentials() -> None:
    worker = enlist()
    new = _issue(worker)
    _adopt(worker, new)
    third = _issue(worker, new)
    with compat.transaction() as session:
        found = workers.by_credentials(session, [hash_token(one) for one in (worker.credential, new, third)])
    assert [record.id for record in found.values()] == [worker.id] * 3


def test_no_credential_is_stored(database: Engine) -> None:
    worker = enlist()
    new = _issue(worker)
    _adopt(worker, new)
    with database.connect() as connection:
        rows = [row for table in Base.metadata.sorted_tables for row in connection.execute(text(f"SELECT * FROM {table.name}"))]
    assert new.partition("_")[2] not in "\n".join(map(str, rows))


def test_a_repeated_request_makes_the_first_credential_void() -> None:
    worker = enlist()
    lost, found = _issue(worker), _issue(worker)
    assert _adopt(worker, lost).credential_hash == hash_token(worker.credential)
    assert _adopt(worker, found).credential_hash == hash_token(found)


def test_its_first_use_in_two_processes_counts_once() -> None:
    worker = enlist()
    new = _issue(worker)
    assert _adopt(worker, new).past_hash == _adopt(worker, new).past_hash == hash_token(worker.credential)


def test_a_replaced_credential_cannot_request_another() -> None:
    worker = enlist()
    _adopt(worker, _issue(worker))
    with pytest.raises(RetryLater, match="replaced"):
        _issue(worker)


def test_a_replaced_credential_is_accepted_during_the_handover_and_then_flagged() -> None:
    worker = enlist()
    _adopt(worker, _issue(worker))
    assert _past(worker, worker.credential)
    assert worker_row(worker.id).alarm == ""
    _change(worker, past_at=ago(seconds=61))
    assert not _past(worker, worker.credential)
    row = worker_row(worker.id)
    assert "10.0.0.7" in row.alarm and row.suspended_at is None
    assert not _past(worker, worker.credential)
    [entry] = audit_entries("replay")
    assert (entry.worker, entry.times) == (worker.name, 2)


def test_a_replay_suspends_the_worker_if_configured() -> None:
    worker = enlist()
    _adopt(worker, _issue(worker))
    _change(worker, past_at=ago(hours=1))
    assert not _past(worker, worker.credential, suspend=True)
    row = worker_row(worker.id)
    assert row.suspended_at is not None and row.session_id is None and "suspended" in row.alarm


def test_an_expired_credential_is_refused_with_the_remedy() -> None:
    worker = enlist()
    with compat.transaction() as session:
        assert rotation.check_expiry(session, worker.id).id == worker.id
    _change(worker, credential_expires_at=ago(seconds=1))
    with compat.transaction() as session, pytest.raises(Expired, match="join --force"):
        rotation.check_expiry(session, worker.id)


def test_a_requested_rotation_ends_when_the_new_credential_is_used() -> None:
    worker = enlist()
    with compat.transaction() as session:
        rotation.request_rotation(session, worker.name, by="ann")
    asked = worker_row(worker.id)
    assert workers.record_of(asked).intent.rotate
    assert not _adopt(worker, _issue(worker)).intent.rotate
    assert _actors(worker) == ["ann"]


def test_a_revoked_worker_gets_no_new_credential() -> None:
    worker = enlist()
    with compat.transaction() as session:
        workers.revoke_worker(session, worker.name, by="me")
    with compat.transaction() as session, pytest.raises(LedgerError, match="revoked permanently"):
        rotation.request_rotation(session, worker.name, by="me")
    with pytest.raises(Revoked):
        _issue(worker)
