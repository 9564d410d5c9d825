"""Workers: sessions, intents, what API processes remember of them, and the reads of people."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import msgspec
from airflow_remote_protocol.messages import Intent, IntentMode, SessionRequest
from airflow_remote_protocol.states import JobState
from airflow_remote_protocol.version import Capability, agree
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from airflow_remote_provider.compat import database_clock, database_now
from airflow_remote_provider.ledger.credentials import revoke
from airflow_remote_provider.ledger.errors import Cloned, LedgerError, Revoked, Unknown
from airflow_remote_provider.ledger.leases import reconcile
from airflow_remote_provider.ledger.wakeup import Topic, wake
from airflow_remote_provider.models import Job, Presence, Worker


@dataclass(frozen=True)
class WorkerRecord:
    """What an API process keeps in memory of one worker: enough to answer an idle poll without the database."""

    id: str
    name: str
    credential_hash: str
    revoked: bool
    queues: tuple[str, ...]
    team: str | None
    slots: int
    intent: Intent
    session_id: str | None
    changed_at: datetime


def _record(worker: Worker) -> WorkerRecord:
    return WorkerRecord(
        id=worker.id,
        name=worker.name,
        credential_hash=worker.credential_hash,
        revoked=worker.revoked_at is not None,
        queues=tuple(worker.queues),
        team=worker.team,
        slots=worker.slots,
        intent=_intent(worker),
        session_id=worker.session_id,
        changed_at=worker.changed_at,
    )


def _intent(worker: Worker) -> Intent:
    return Intent(IntentMode(worker.intent), worker.intent_revision, worker.slots_limit, worker.intent_reason)


def by_credential(session: Session, credential_hash: str) -> WorkerRecord | None:
    """Return the worker that this credential belongs to."""
    worker = session.scalar(select(Worker).where(Worker.credential_hash == credential_hash))
    return None if worker is None else _record(worker)


def changed_since(session: Session, since: datetime | None) -> list[WorkerRecord]:
    """Return the workers whose row changed at or after *since* (None: all)."""
    query = select(Worker)
    if since is not None:
        query = query.where(Worker.changed_at >= since)
    return [_record(worker) for worker in session.scalars(query)]


def open_session(session: Session, worker_id: str, request: SessionRequest) -> WorkerRecord:
    """Give the worker a new session; the same instance takes over at once, whatever became of the old one.

    Raises:
        Cloned: this credential's session belongs to another installation or machine; the first is not disturbed, but flagged
            (call :func:`flag_clone` in a transaction of its own: this one is rolled back).
        Revoked: the credential was revoked.
    """
    worker = session.scalar(select(Worker).where(Worker.id == worker_id).with_for_update())
    if worker is None or worker.revoked_at is not None:
        raise Revoked("this worker's credential was revoked; join again with a new enrolment token")
    if worker.instance_id is not None and worker.instance_id != request.instance_id:
        raise Cloned(
            f"worker {worker.name!r} is known as another installation: its state directory was copied, or the machine rebuilt. "
            f"On a copy, join under another name; on a rebuilt machine, first: airflow remote workers remove {worker.name}"
        )
    now = database_now(session)
    worker.instance_id = request.instance_id
    worker.boot_id = request.boot_id
    worker.session_id = str(uuid.uuid4())
    worker.session_at = now
    worker.slots = request.slots
    worker.facts = msgspec.to_builtins(request.facts)
    worker.capabilities = sorted(c.value for c in agree(frozenset(Capability), request.capabilities))
    worker.changed_at = now
    reconcile(session, worker_id, request.jobs)
    seen(session, [worker_id])
    wake(session, Topic.WORKER)
    return _record(worker)


def flag_clone(session: Session, worker_id: str) -> None:
    """Note that someone else used this worker's credential."""
    now = database_now(session)
    session.execute(
        update(Worker)
        .where(Worker.id == worker_id)
        .values(alarm=f"{now:%Y-%m-%d %H:%M} UTC: another installation used this worker's credential and was refused")
    )


def seen(session: Session, worker_ids: Sequence[str]) -> None:
    """Note a contact of these workers, now. One statement, whatever the fleet."""
    session.execute(
        update(Presence)
        .where(Presence.worker_id.in_(worker_ids))
        .values(last_seen_at=database_clock(session))
        .execution_options(synchronize_session=False)
    )


@dataclass(frozen=True)
class WorkerRow:
    """One worker as people see it. *presence*, *intent* and activity (*used_slots*) are three facts."""

    id: str
    name: str
    presence: str
    intent: str
    intent_reason: str
    intent_by: str
    queues: list[str]
    team: str | None
    slots: int
    slots_limit: int | None
    used_slots: int
    last_seen_at: datetime | None
    created_at: datetime
    revoked_at: datetime | None
    alarm: str
    facts: dict[str, str]


def list_workers(session: Session, *, silent_after: timedelta, name: str | None = None) -> list[WorkerRow]:
    """Return the workers by name, or the one named."""
    leased = [state.value for state in JobState if state.is_leased]
    used = (
        select(Job.worker_id, func.sum(Job.slots).label("slots")).where(Job.state.in_(leased)).group_by(Job.worker_id).subquery()
    )
    query = (
        select(Worker, Presence.last_seen_at, used.c.slots)
        .outerjoin(Presence, Presence.worker_id == Worker.id)
        .outerjoin(used, used.c.worker_id == Worker.id)
        .where(Worker.removed_at.is_(None))
        .order_by(Worker.name)
    )
    if name is not None:
        query = query.where(Worker.name == name)
    now = database_now(session)
    return [
        WorkerRow(
            id=worker.id,
            name=worker.name,
            presence=presence_of(worker, last_seen, now, silent_after),
            intent=worker.intent,
            intent_reason=worker.intent_reason,
            intent_by=worker.intent_by,
            queues=list(worker.queues),
            team=worker.team,
            slots=worker.slots,
            slots_limit=worker.slots_limit,
            used_slots=int(slots or 0),
            last_seen_at=last_seen,
            created_at=worker.created_at,
            revoked_at=worker.revoked_at,
            alarm=worker.alarm,
            facts=dict(worker.facts),
        )
        for worker, last_seen, slots in session.execute(query)
    ]


def presence_of(worker: Worker, last_seen: datetime | None, now: datetime, silent_after: timedelta) -> str:
    """Return what central observes: `online`, `silent`, or `gone` (never came, or its credential is revoked)."""
    if worker.revoked_at is not None or last_seen is None:
        return "gone"
    return "online" if now - last_seen <= silent_after else "silent"


def find_worker(session: Session, name: str) -> Worker:
    worker = session.scalar(select(Worker).where(Worker.name == name, Worker.removed_at.is_(None)).with_for_update())
    if worker is None:
        raise Unknown(f"there is no worker named {name!r}; `airflow remote workers list` shows those there are")
    return worker


def set_intent(session: Session, name: str, mode: IntentMode, *, by: str, reason: str = "") -> None:
    """Store people's wish; the worker hears of it in its open poll."""
    worker = find_worker(session, name)
    worker.intent = mode.value
    worker.intent_reason = reason
    _wished(session, worker, by)


def limit_slots(session: Session, name: str, slots: int | None, *, by: str) -> None:
    """Bound the slots that a worker may fill (None: what it offers itself). Running jobs are not touched."""
    worker = find_worker(session, name)
    worker.slots_limit = slots
    _wished(session, worker, by)


def _wished(session: Session, worker: Worker, by: str) -> None:
    now = database_now(session)
    worker.intent_revision += 1
    worker.intent_by = by
    worker.intent_at = now
    worker.changed_at = now
    wake(session, Topic.WORKER)


def revoke_worker(session: Session, name: str) -> None:
    """End the worker's right to speak. Its jobs run on until they are lost or it is let in again."""
    revoke(session, find_worker(session, name))


def remove_worker(session: Session, name: str) -> None:
    """Forget a worker: revoked at once, no longer listed, its name free. The row goes later (:func:`..sweep.purge`), when every
    API process has heard of the revocation.

    Raises:
        LedgerError: it holds jobs.
    """
    worker = find_worker(session, name)
    leased = [state.value for state in JobState if state.is_leased]
    held = session.scalar(select(func.count()).select_from(Job).where(Job.worker_id == worker.id, Job.state.in_(leased)))
    if held:
        raise LedgerError(f"worker {name!r} holds {held} job(s); drain it first: airflow remote workers drain {name}")
    revoke(session, worker)
    worker.removed_at = worker.revoked_at
