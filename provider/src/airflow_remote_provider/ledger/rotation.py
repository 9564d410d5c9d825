"""Replaces the credentials of workers, and detects the use of a replaced one. Only hashes are stored.

A worker asks for its next credential, stores it, and uses it. The old credential stays valid until that first use, so that a lost
reply does no harm. After the first use, the old credential is accepted for :data:`HANDOVER`, because earlier requests may still
arrive. Later, its use means that someone has a copy.
"""

from __future__ import annotations

import secrets
from datetime import timedelta

from airflow_remote_protocol.tokens import TOKEN_BYTES, TokenKind, hash_token, make_token
from sqlalchemy import select
from sqlalchemy.orm import Session

from airflow_remote_provider.compat import database_now
from airflow_remote_provider.ledger.audit import AuditKind, Event, record, record_action
from airflow_remote_provider.ledger.changes import stamp
from airflow_remote_provider.ledger.errors import Expired, LedgerError, RetryLater, Revoked, Suspended
from airflow_remote_provider.ledger.wakeup import Topic, wake
from airflow_remote_provider.ledger.workers import WorkerRecord, find_worker, record_of
from airflow_remote_provider.models import Worker

HANDOVER = timedelta(seconds=60)
"""How long the old credential is accepted after the first use of the new one: a request waits 30 s and may be sent twice."""


def issue(session: Session, worker_id: str, presented: str, *, life: timedelta) -> tuple[str, WorkerRecord]:
    """Make the credential that replaces the one with the hash *presented*; return it in clear text, only now.

    A repeated call makes another one: the reply with the first was lost, so no one has it.

    Raises:
        RetryLater: *presented* has already been replaced.
        Revoked, Suspended: the worker is refused.
    """
    worker = _locked(session, worker_id)
    if worker.suspended_at is not None:
        raise Suspended(worker.name)
    if worker.credential_hash != presented:
        raise RetryLater("this credential has been replaced; ask with the newer one")
    credential = make_token(TokenKind.WORKER, secrets.token_bytes(TOKEN_BYTES))
    now = database_now(session)
    worker.next_hash, worker.next_at, worker.next_expires_at = hash_token(credential), now, now + life
    worker.changed_at = stamp(session)
    wake(session, Topic.WORKER)
    return credential, record_of(worker)


def adopt(session: Session, worker_id: str, presented: str) -> WorkerRecord:
    """Make the next credential, which was just used, the worker's own. Nothing changes if *presented* is another one."""
    worker = _locked(session, worker_id)
    if worker.next_hash != presented:
        return record_of(worker)
    now = database_now(session)
    worker.past_hash, worker.past_at = worker.credential_hash, now
    worker.credential_hash, worker.credential_at, worker.credential_expires_at = presented, worker.next_at, worker.next_expires_at
    worker.next_hash = worker.next_at = worker.next_expires_at = worker.rotate_asked_at = None
    worker.changed_at = stamp(session)
    until = worker.credential_expires_at
    detail = f"uses a new credential, good until {until:%Y-%m-%d %H:%M} UTC" if until else "uses a new credential"
    cause = f"{worker.id} {now:%Y-%m-%d}"
    record(session, Event(AuditKind.ROTATED, cause, detail, actor="worker", worker_id=worker.id, worker_name=worker.name))
    wake(session, Topic.WORKER)
    return record_of(worker)


def check_replaced(session: Session, worker_id: str, presented: str, *, source: str, suspend: bool) -> tuple[WorkerRecord, bool]:
    """Decide about a call with a replaced credential, and return the worker and whether the call is accepted.

    A call is accepted if it may have been sent before the replacement. Otherwise the worker is flagged, and with *suspend*
    suspended.
    """
    worker = _locked(session, worker_id)
    now = database_now(session)
    if presented != worker.past_hash or worker.past_at is None:
        return record_of(worker), presented == worker.credential_hash
    if now - worker.past_at <= HANDOVER:
        return record_of(worker), True
    where = f" from {source}" if source else ""
    text = f"a credential that had been replaced on {worker.past_at:%Y-%m-%d %H:%M} UTC was used{where} and refused: "
    text += "the worker's directory was restored from a backup, or someone has a copy of it"
    if suspend and worker.suspended_at is None:
        worker.suspended_at, worker.session_id = now, None
        text += "; the worker is suspended"
    worker.alarm = f"{now:%Y-%m-%d %H:%M} UTC: {text}"
    worker.changed_at = stamp(session)
    cause = f"{worker.id} {now:%Y-%m-%d}"
    record(session, Event(AuditKind.REPLAY, cause, text, actor="worker", worker_id=worker.id, worker_name=worker.name))
    wake(session, Topic.WORKER)
    return record_of(worker), False


def check_expiry(session: Session, worker_id: str) -> WorkerRecord:
    """Return the present worker. Called only when the process's own clock says that the credential has expired.

    Raises:
        Expired: the database's clock says so, too.
    """
    worker = _locked(session, worker_id)
    if worker.credential_expires_at is not None and worker.credential_expires_at <= database_now(session):
        raise Expired(worker.name)
    return record_of(worker)


def _locked(session: Session, worker_id: str) -> Worker:
    worker = session.scalar(select(Worker).where(Worker.id == worker_id).with_for_update())
    if worker is None or worker.revoked_at is not None:
        raise Revoked("this worker's credential was revoked; join again with a new enrolment token")
    return worker


# Requests of users


def request_rotation(session: Session, name: str, *, by: str) -> None:
    """Request the worker to replace its credential as soon as it receives the request."""
    worker = credentialed_worker(session, name)
    worker.rotate_asked_at = database_now(session)
    worker.intent_revision += 1
    worker.changed_at = stamp(session)
    record_action(session, by, "requested a new credential", worker=worker)
    wake(session, Topic.WORKER)


def credentialed_worker(session: Session, name: str) -> Worker:
    worker = find_worker(session, name)
    if worker.revoked_at is not None:
        raise LedgerError(f"the credential of worker {name!r} was revoked permanently; remove the worker and join it again")
    return worker
