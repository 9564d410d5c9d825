"""Sessions of a worker, and copies of one: two machines with the same credential."""

from __future__ import annotations

import uuid
from datetime import datetime, timedelta

from airflow_remote_protocol.messages import SessionRequest
from airflow_remote_protocol.version import Capability, agree
from sqlalchemy import select
from sqlalchemy.orm import Session

from airflow_remote_provider.compat import database_now
from airflow_remote_provider.ledger.audit import AuditKind
from airflow_remote_provider.ledger.changes import stamp
from airflow_remote_provider.ledger.credentials import LIVE_WITHIN, shown_facts
from airflow_remote_provider.ledger.errors import Cloned, Revoked, StrangeCertificate, Suspended
from airflow_remote_provider.ledger.leases import reconcile
from airflow_remote_provider.ledger.wakeup import Topic, wake
from airflow_remote_provider.ledger.workers import WorkerRecord, note_change_of, record_of, seen
from airflow_remote_provider.models import Worker, WorkerContact

RIVALS_WITHIN = timedelta(minutes=10)
"""How long after a takeover the older start may claim its session back, and shows by that that the later one is a copy."""


WIDEST_OFFSET_S = 1e9


def open_session(session: Session, worker_id: str, request: SessionRequest, *, certificate: str | None = None) -> WorkerRecord:
    """Give the worker a new session; a new start of the same instance takes over at once, whatever became of the old one.

    One that is bound to no client certificate yet is bound to the *certificate* that it came with.

    A start that was taken over is dead and says nothing any more, unless the other one is a copy of the whole machine. If it
    speaks again soon, the older start has its session back and the later one is refused from now on.

    Raises:
        Cloned: this credential's session belongs to another installation, or to another copy of this one; the first is not
            disturbed, but flagged (call :func:`flag_clone` in a transaction of its own: this one is rolled back).
        Revoked: the credential was revoked.
        Suspended: somebody has to lift that first.
        StrangeCertificate: it is bound to another one.
    """
    worker = session.scalar(select(Worker).where(Worker.id == worker_id).with_for_update())
    if worker is None or worker.revoked_at is not None:
        raise Revoked("this worker's credential was revoked; join again with a new enrolment token")
    if worker.suspended_at is not None:
        raise Suspended(worker.name)
    if worker.instance_id is not None and worker.instance_id != request.instance_id:
        raise Cloned(
            f"worker {worker.name!r} is known as another installation: its state directory was copied, or the machine rebuilt. "
            "On a copy, join under another name; on a rebuilt machine, join with a token of: "
            f"airflow remote enrol create --replaces {worker.name}"
        )
    now = database_now(session)
    if worker.boot_id != request.boot_id:
        _take_over(session, worker, request.boot_id, now)
        worker.restart_asked_at = worker.restart_asked_by = None
    if certificate is not None and worker.certificate not in (None, certificate):
        raise StrangeCertificate(worker.name, certificate)
    if certificate is not None and worker.certificate is None:
        worker.certificate = certificate
        note_change_of(session, worker, AuditKind.CERTIFICATE, f"was bound to the client certificate of {certificate}", now)
    worker.instance_id = request.instance_id
    worker.boot_id = request.boot_id
    worker.session_id = str(uuid.uuid4())
    worker.received_revision = worker.intent_revision  # the answer tells it
    worker.session_at = now
    worker.slots = request.slots
    worker.triggers = request.triggers
    worker.facts = shown_facts(request.facts)
    worker.capabilities = sorted(c.value for c in agree(frozenset(Capability), request.capabilities))
    if Capability.RUNTIME.value not in worker.capabilities:
        worker.runtime = worker.unfit = None  # it is judged by its jobs alone
    worker.clock_offset_s = _offset_s(request.time, now)
    worker.changed_at = stamp(session)
    reconcile(session, worker_id, request.jobs)
    seen(session, [worker_id])
    wake(session, Topic.WORKER)
    return record_of(worker)


def end_session(session: Session, worker_id: str, session_id: str) -> WorkerRecord | None:
    """Note that the worker's daemon has ended as it should: it is offline. None: it has another session, and nothing changed.

    Its jobs are its own as before, and are lost by its silence only: they may run on, and its next start adopts them.
    """
    worker = session.scalar(select(Worker).where(Worker.id == worker_id).with_for_update())
    if worker is None or worker.session_id != session_id:
        return None
    worker.session_id = worker.boot_id = None
    worker.changed_at = stamp(session)
    wake(session, Topic.WORKER)
    return record_of(worker)


def _take_over(session: Session, worker: Worker, boot_id: str, now: datetime) -> None:
    """Let this start of the worker have the session that another start has.

    Raises:
        Cloned: two starts are alive, and this one is the later, or was taken over long ago.
    """
    if boot_id == worker.refused_boot_id:
        raise Cloned(_copied(worker, "it was started while the first one was alive"))
    if boot_id != worker.previous_boot_id:
        seen_at = session.scalar(select(WorkerContact.last_seen_at).where(WorkerContact.worker_id == worker.id))
        if worker.boot_id is not None and seen_at is not None and now - seen_at <= LIVE_WITHIN:
            detail = f"start {boot_id} took the session over from start {worker.boot_id}, last heard of at {seen_at:%H:%M:%S} UTC"
            note_change_of(session, worker, AuditKind.TAKEOVER, detail, now)
        worker.previous_boot_id = worker.boot_id
        return
    if worker.session_at is None or now - worker.session_at > RIVALS_WITHIN:
        raise Cloned(_copied(worker, "another start has had its session for a while"))
    worker.refused_boot_id, worker.previous_boot_id = worker.boot_id, None
    _flag(session, worker, "a copy of the machine used this worker's credential; it is refused, the first one works on", now)


def _copied(worker: Worker, why: str) -> str:
    return (
        f"worker {worker.name!r} runs twice: this one is a copy of the other's machine or directory, for {why}. "
        "Remove this one's state directory and join it under another name; or end the other one for good and start this one again"
    )


def flag_clone(session: Session, worker_id: str) -> None:
    """Note that someone else used this worker's credential."""
    worker = session.scalar(select(Worker).where(Worker.id == worker_id).with_for_update())
    if worker is not None:
        text = "another installation, or a copy of this one, used this worker's credential and was refused"
        _flag(session, worker, text, database_now(session))


def _flag(session: Session, worker: Worker, text: str, now: datetime) -> None:
    worker.alarm = f"{now:%Y-%m-%d %H:%M} UTC: {text}"
    note_change_of(session, worker, AuditKind.CLONE, text, now)


def _offset_s(theirs: float, now: datetime) -> float | None:
    """Return by how much a worker's clock is ahead of ours; None if it did not tell."""
    if not theirs:
        return None
    return max(-WIDEST_OFFSET_S, min(theirs - now.timestamp(), WIDEST_OFFSET_S))
