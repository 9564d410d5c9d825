"""A worker's credential is replaced without a moment at which it has none, and a replaced one betrays whoever uses it."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import Engine, text

from testkit.ledger import Enlisted, ago, audited, claim, enlist, job_row, queued, running, session_request, worker_row  # isort: skip

from airflow_remote_protocol.tokens import TokenKind, check_token, hash_token
from airflow_remote_provider import compat
from airflow_remote_provider.ledger import rotation, sessions, suspension, workers
from airflow_remote_provider.ledger.errors import Expired, LedgerError, NotYet, Revoked, Suspended
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
        return rotation.hear_past(session, worker.id, hash_token(credential), source="10.0.0.7", suspend=suspend)[1]


def _change(worker: Enlisted, **values: object) -> None:
    with compat.transaction() as session:
        row = session.get(Worker, worker.id)
        for name, value in values.items():
            setattr(row, name, value)


def _actors(worker: Enlisted) -> list[str]:
    return sorted(entry.actor for entry in audited("action") if entry.worker == worker.name)


def test_the_next_credential_becomes_the_workers_at_its_first_use() -> None:
    worker = enlist()
    new = _issue(worker)
    check_token(TokenKind.WORKER, new)
    assert worker_row(worker.id).credential_hash == hash_token(worker.credential)
    record = _adopt(worker, new)
    assert (record.credential_hash, record.next_hash, record.past_hash) == (hash_token(new), None, hash_token(worker.credential))
    assert record.expires_at is not None and record.issued_at is not None and record.expires_at - record.issued_at == LIFE
    [entry] = audited("rotated")
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


def test_asked_again_the_first_answer_is_void() -> None:
    worker = enlist()
    lost, found = _issue(worker), _issue(worker)
    assert _adopt(worker, lost).credential_hash == hash_token(worker.credential)
    assert _adopt(worker, found).credential_hash == hash_token(found)


def test_its_first_use_in_two_processes_counts_once() -> None:
    worker = enlist()
    new = _issue(worker)
    assert _adopt(worker, new).past_hash == _adopt(worker, new).past_hash == hash_token(worker.credential)


def test_a_replaced_credential_gets_no_other() -> None:
    worker = enlist()
    _adopt(worker, _issue(worker))
    with pytest.raises(NotYet, match="replaced"):
        _issue(worker)


def test_what_left_before_is_taken_and_what_comes_later_is_flagged() -> None:
    worker = enlist()
    _adopt(worker, _issue(worker))
    assert _past(worker, worker.credential)
    assert worker_row(worker.id).alarm == ""
    _change(worker, past_at=ago(seconds=61))
    assert not _past(worker, worker.credential)
    row = worker_row(worker.id)
    assert "10.0.0.7" in row.alarm and row.suspended_at is None
    assert not _past(worker, worker.credential)
    [entry] = audited("replay")
    assert (entry.worker, entry.times) == (worker.name, 2)


def test_a_replay_suspends_if_that_is_wanted() -> None:
    worker = enlist()
    _adopt(worker, _issue(worker))
    _change(worker, past_at=ago(hours=1))
    assert not _past(worker, worker.credential, suspend=True)
    row = worker_row(worker.id)
    assert row.suspended_at is not None and row.session_id is None and "suspended" in row.alarm


def test_an_expired_credential_is_refused_with_the_remedy() -> None:
    worker = enlist()
    with compat.transaction() as session:
        assert rotation.insist_on_life(session, worker.id).id == worker.id
    _change(worker, credential_expires_at=ago(seconds=1))
    with compat.transaction() as session, pytest.raises(Expired, match="join --force"):
        rotation.insist_on_life(session, worker.id)


def test_a_wish_for_a_new_credential_is_over_when_that_is_used() -> None:
    worker = enlist()
    with compat.transaction() as session:
        rotation.ask_to_rotate(session, worker.name, by="ann")
    asked = worker_row(worker.id)
    assert workers.record_of(asked).intent.rotate
    assert not _adopt(worker, _issue(worker)).intent.rotate
    assert _actors(worker) == ["ann"]


def test_a_suspended_worker_opens_no_session_gets_no_offer_and_keeps_its_jobs() -> None:
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


def test_only_what_is_suspended_is_let_in_again() -> None:
    worker = enlist()
    with compat.transaction() as session, pytest.raises(LedgerError, match="not suspended"):
        suspension.unsuspend(session, worker.name, by="me")


@pytest.mark.parametrize("verb", [rotation.ask_to_rotate, suspension.suspend, suspension.unsuspend])
def test_a_revoked_worker_is_revoked_for_good(verb: object) -> None:
    worker = enlist()
    with compat.transaction() as session:
        workers.revoke_worker(session, worker.name, by="me")
    with compat.transaction() as session, pytest.raises(LedgerError, match="for good"):
        verb(session, worker.name, by="me")  # type: ignore[operator]
    with pytest.raises(Revoked):
        _issue(worker)
