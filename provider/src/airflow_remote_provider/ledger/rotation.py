"""How a worker's credential is replaced, and what it means when a replaced one is used. Hashes only.

A worker asks for its next credential, stores it, and uses it; the one that asked stays good until then, so that whatever is lost
on the way costs nothing. From its first use on the new one is the credential and the old one is past: for as long as requests
that had left before may still arrive it is taken, after that whoever uses it has a copy.
"""

from __future__ import annotations

import secrets
from datetime import timedelta

from airflow_remote_protocol.tokens import TOKEN_BYTES, TokenKind, hash_token, make_token
from sqlalchemy import select
from sqlalchemy.orm import Session

from airflow_remote_provider.compat import database_now
from airflow_remote_provider.ledger.audit import AuditKind, Event, acted, record
from airflow_remote_provider.ledger.changes import stamp
from airflow_remote_provider.ledger.errors import Expired, LedgerError, NotYet, Revoked, Suspended
from airflow_remote_provider.ledger.wakeup import Topic, wake
from airflow_remote_provider.ledger.workers import WorkerRecord, find_worker, record_of
from airflow_remote_provider.models import Worker

HANDOVER = timedelta(seconds=60)
"""How long after the new one's first use the old one is taken: a request waits 30 s for its answer, and may be sent twice."""


def issue(session: Session, worker_id: str, presented: str, *, life: timedelta) -> tuple[str, WorkerRecord]:
    """Make the credential that replaces the one whose hash is *presented*; return it in clear, this once.

    Asked again, it makes another: the reply with the first was lost, and nobody can use what nobody has.

    Raises:
        NotYet: *presented* has been replaced already.
        Revoked, Suspended: the worker may not speak.
    """
    worker = _locked(session, worker_id)
    if worker.suspended_at is not None:
        raise Suspended(worker.name)
    if worker.credential_hash != presented:
        raise NotYet("this credential has been replaced by a newer one of this worker's; ask with that")
    credential = make_token(TokenKind.WORKER, secrets.token_bytes(TOKEN_BYTES))
    now = database_now(session)
    worker.next_hash, worker.next_at, worker.next_expires_at = hash_token(credential), now, now + life
    worker.changed_at = stamp(session)
    wake(session, Topic.WORKER)
    return credential, record_of(worker)


def adopt(session: Session, worker_id: str, presented: str) -> WorkerRecord:
    """Take the next credential for the worker's own: it was used. If *presented* is not (any more) that, nothing changes."""
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


def hear_past(session: Session, worker_id: str, presented: str, *, source: str, suspend: bool) -> tuple[WorkerRecord, bool]:
    """Decide about a call with a credential that was replaced. True: it left before that; False: the worker is flagged,
    and suspended if *suspend*."""
    worker = _locked(session, worker_id)
    now = database_now(session)
    if presented != worker.past_hash or worker.past_at is None:
        return record_of(worker), presented == worker.credential_hash
    if now - worker.past_at <= HANDOVER:
        return record_of(worker), True
    where = f" from {source}" if source else ""
    text = f"a credential that had been replaced on {worker.past_at:%Y-%m-%d %H:%M} UTC was used{where} and refused: "
    text += "the worker's directory was restored from a backup, or somebody has a copy of it"
    if suspend and worker.suspended_at is None:
        worker.suspended_at, worker.session_id = now, None
        text += "; the worker is suspended"
    worker.alarm = f"{now:%Y-%m-%d %H:%M} UTC: {text}"
    worker.changed_at = stamp(session)
    cause = f"{worker.id} {now:%Y-%m-%d}"
    record(session, Event(AuditKind.REPLAY, cause, text, actor="worker", worker_id=worker.id, worker_name=worker.name))
    wake(session, Topic.WORKER)
    return record_of(worker), False


def insist_on_life(session: Session, worker_id: str) -> WorkerRecord:
    """Return the worker as it is now. Asked only when a process's own clock says that the credential's life is over.

    Raises:
        Expired: the database's clock says so too.
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


# What people want


def ask_to_rotate(session: Session, name: str, *, by: str) -> None:
    """Have the worker replace its credential as soon as it hears of it."""
    worker = credentialed_worker(session, name)
    worker.rotate_asked_at = database_now(session)
    worker.intent_revision += 1
    worker.changed_at = stamp(session)
    acted(session, by, "asked for a new credential", worker)
    wake(session, Topic.WORKER)


def credentialed_worker(session: Session, name: str) -> Worker:
    worker = find_worker(session, name)
    if worker.revoked_at is not None:
        raise LedgerError(f"the credential of worker {name!r} was revoked for good; remove it and join it again")
    return worker
