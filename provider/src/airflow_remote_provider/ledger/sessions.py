"""Sessions of workers, and the detection of copies: two machines with the same credential (ADR 0010)."""

from __future__ import annotations

import uuid
from datetime import datetime, timedelta

from airflow_remote_protocol.messages import SessionRequest
from airflow_remote_protocol.version import Capability, agree
from sqlalchemy import select
from sqlalchemy.orm import Session

from airflow_remote_provider.compat import database_now
from airflow_remote_provider.ledger import capacity
from airflow_remote_provider.ledger.audit import AuditKind
from airflow_remote_provider.ledger.changes import stamp
from airflow_remote_provider.ledger.credentials import LIVE_WITHIN, shown_facts
from airflow_remote_provider.ledger.errors import Cloned, Revoked, Suspended, WrongCertificate
from airflow_remote_provider.ledger.held_runtimes import NOT_REPORTED
from airflow_remote_provider.ledger.leases import reconcile
from airflow_remote_provider.ledger.wakeup import Topic, wake
from airflow_remote_provider.ledger.workers import WorkerRecord, note_contact, record_of, record_worker_event
from airflow_remote_provider.models import Worker, WorkerContact

RIVALS_WITHIN = timedelta(minutes=10)
"""How long after a takeover the older start can claim its session back, which proves that the later one is a copy."""


WIDEST_OFFSET_S = 1e9


def open_session(session: Session, worker_id: str, request: SessionRequest, *, certificate: str | None = None) -> WorkerRecord:
    """Open a new session of the worker. A new start of the same instance takes over at once.

    A worker that is not bound to a client certificate yet is bound to *certificate*.

    A start that was taken over is dead and makes no more calls, unless the other one is a copy of the whole machine. If the older
    start calls again soon, it gets its session back, and the later one is refused from then on.

    Raises:
        Cloned: this credential's session belongs to another installation, or to another copy of this one. The first one keeps its
            session, but is flagged (call :func:`flag_clone` in a transaction of its own: this one is rolled back).
        Revoked: the credential was revoked.
        Suspended: an administrator must lift the suspension first.
        WrongCertificate: the worker is bound to another certificate.
    """
    worker = session.scalar(select(Worker).where(Worker.id == worker_id).with_for_update())
    if worker is None or worker.revoked_at is not None:
        raise Revoked("this worker's credential was revoked; join again with a new enrolment token")
    if worker.suspended_at is not None:
        raise Suspended(worker.name)
    if worker.instance_id is not None and worker.instance_id != request.instance_id:
        raise Cloned(
            f"worker {worker.name!r} is another installation: its state directory was copied, or the machine was rebuilt. "
            "On a copy, join under another name; on a rebuilt machine, join with a token from: "
            f"airflow remote enrol create --replaces {worker.name}"
        )
    now = database_now(session)
    is_new_start = worker.boot_id != request.boot_id
    if is_new_start:
        _take_over(session, worker, boot_id=request.boot_id, now=now)
        worker.restart_asked_at = worker.restart_asked_by = None
        worker.runtimes = None  # a daemon that has just started tests its runtimes again
    if certificate is not None and worker.certificate not in (None, certificate):
        raise WrongCertificate(worker.name, certificate)
    if certificate is not None and worker.certificate is None:
        worker.certificate = certificate
        record_worker_event(
            session, worker, AuditKind.CERTIFICATE, detail=f"was bound to the client certificate of {certificate}", now=now
        )
    worker.instance_id = request.instance_id
    worker.boot_id = request.boot_id
    worker.session_id = str(uuid.uuid4())
    worker.received_revision = worker.intent_revision  # the reply contains the intent
    worker.session_at = now
    worker.slots = request.slots
    worker.triggers = request.triggers
    worker.facts = shown_facts(request.facts)
    worker.capabilities = sorted(c.value for c in agree(frozenset(Capability), request.capabilities))
    _limit_jobs(worker, request, now=now, is_new_start=is_new_start)
    _forget_reports(worker)
    worker.clock_offset_s = _offset_s(request.time, now)
    worker.changed_at = stamp(session)
    reconcile(session, worker_id, request.jobs)
    note_contact(session, [worker_id])
    wake(session, Topic.WORKER)
    return record_of(worker)


def _limit_jobs(worker: Worker, request: SessionRequest, *, now: datetime, is_new_start: bool) -> None:
    """Note whether the worker is ephemeral and how many jobs it takes (ADR 0047).

    An ephemeral worker can't take either back: a thief of its credential gets no job beyond that number. Another
    worker's number counts from each start of its daemon.
    """
    worker.ephemeral = worker.ephemeral or request.ephemeral
    if not worker.ephemeral:
        worker.jobs_limit = request.max_jobs
        if is_new_start or worker.jobs_since is None:
            worker.jobs_since = now
    elif request.max_jobs is not None:
        worker.jobs_limit = request.max_jobs if worker.jobs_limit is None else min(worker.jobs_limit, request.max_jobs)
        worker.jobs_since = worker.jobs_since or now


def jobs_left(session: Session, worker_id: str) -> int | None:
    """Return how many more jobs the worker may be offered; None: any number."""
    worker = session.get(Worker, worker_id)
    return None if worker is None else capacity.jobs_left(session, [worker]).get(worker_id)


def _forget_reports(worker: Worker) -> None:
    """Forget what a worker has reported of its runtimes and its release under capabilities that it no longer has.

    A worker that takes its runtimes from central has none of its own to report.
    """
    capabilities = worker.capabilities or ()
    if Capability.RUNTIME.value not in capabilities or Capability.RUNTIMES.value in capabilities:
        worker.runtime = None
    if Capability.RUNTIMES.value not in capabilities:
        worker.runtimes = None
    if Capability.RELEASES.value not in capabilities:
        worker.release = worker.release_asked = None
    if worker.runtimes is None and worker.runtime is None:  # without a report, only its jobs count
        worker.unfit = NOT_REPORTED if Capability.RUNTIMES.value in capabilities else None


def end_session(session: Session, worker_id: str, session_id: str) -> WorkerRecord | None:
    """Note that the worker's daemon has shut down cleanly, so that it is offline. None: it has another session; nothing changed.

    Its jobs stay leased to it, and are lost only by its silence: they may keep running, and its next start adopts them.
    """
    worker = session.scalar(select(Worker).where(Worker.id == worker_id).with_for_update())
    if worker is None or worker.session_id != session_id:
        return None
    worker.session_id = worker.boot_id = None
    worker.changed_at = stamp(session)
    wake(session, Topic.WORKER)
    return record_of(worker)


def _take_over(session: Session, worker: Worker, *, boot_id: str, now: datetime) -> None:
    """Take over the session from another start of the worker.

    Raises:
        Cloned: two starts are alive, and this one is the later one, or was taken over long ago.
    """
    if boot_id == worker.refused_boot_id:
        raise Cloned(_copy_text(worker, "it was started while the first one was alive"))
    if boot_id != worker.previous_boot_id:
        seen_at = session.scalar(select(WorkerContact.last_seen_at).where(WorkerContact.worker_id == worker.id))
        if worker.boot_id is not None and seen_at is not None and now - seen_at <= LIVE_WITHIN:
            detail = f"start {boot_id} took over the session from start {worker.boot_id}, last contact at {seen_at:%H:%M:%S} UTC"
            record_worker_event(session, worker, AuditKind.TAKEOVER, detail=detail, now=now)
        worker.previous_boot_id = worker.boot_id
        return
    if worker.session_at is None or now - worker.session_at > RIVALS_WITHIN:
        raise Cloned(_copy_text(worker, "another start has held the session for a while"))
    worker.refused_boot_id, worker.previous_boot_id = worker.boot_id, None
    _flag(
        session,
        worker,
        text="a copy of the machine used this worker's credential; the copy is refused, the original continues",
        now=now,
    )


def _copy_text(worker: Worker, why: str) -> str:
    return (
        f"worker {worker.name!r} runs twice: this one is a copy of the other's machine or directory, because {why}. "
        "Remove this one's state directory and join under another name, or stop the other one for good and start this one again"
    )


def flag_clone(session: Session, worker_id: str) -> None:
    """Flag the worker because someone else used its credential."""
    worker = session.scalar(select(Worker).where(Worker.id == worker_id).with_for_update())
    if worker is not None:
        text = "another installation, or a copy of this one, used this worker's credential and was refused"
        _flag(session, worker, text=text, now=database_now(session))


def _flag(session: Session, worker: Worker, *, text: str, now: datetime) -> None:
    worker.alarm = f"{now:%Y-%m-%d %H:%M} UTC: {text}"
    record_worker_event(session, worker, AuditKind.CLONE, detail=text, now=now)


def _offset_s(theirs: float, now: datetime) -> float | None:
    """Return how far a worker's clock is ahead of ours, in seconds; None if it did not report its time."""
    if not theirs:
        return None
    return max(-WIDEST_OFFSET_S, min(theirs - now.timestamp(), WIDEST_OFFSET_S))
