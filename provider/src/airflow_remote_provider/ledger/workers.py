"""Workers: their intents, rights and removal, and the record of a worker that API processes keep in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from airflow_remote_protocol.messages import Intent, IntentMode
from airflow_remote_protocol.states import JobState
from sqlalchemy import func, or_, select, update
from sqlalchemy.orm import Session

from airflow_remote_provider.compat import database_clock, database_now
from airflow_remote_provider.ledger.assignments import Host, host_of, release_host_of
from airflow_remote_provider.ledger.audit import AuditKind, Event, record, record_action
from airflow_remote_provider.ledger.changes import stamp
from airflow_remote_provider.ledger.credentials import check_bundles, revoke
from airflow_remote_provider.ledger.errors import LedgerError, NotFound, Revoked
from airflow_remote_provider.ledger.wakeup import Topic, wake
from airflow_remote_provider.models import Job, Worker, WorkerContact

LONGEST_PAUSE = timedelta(days=366)
CENTRAL = "central"
"""The actor where no user acts."""


@dataclass(frozen=True)
class WorkerRecord:
    """The part of a worker's row that an API process keeps in memory to answer an idle poll without the database."""

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
    next_hash: str | None = None
    past_hash: str | None = None
    suspended: bool = False
    issued_at: datetime | None = None
    expires_at: datetime | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    bundles: tuple[str, ...] | None = None
    certificate: str | None = None
    received_revision: int | None = None
    unfit: str = ""
    early_failures: int = 0
    host: Host | None = None
    """The worker as the choice of its runtimes depends on it; None: it takes none from central."""
    jobs_limit: int | None = None
    release_host: Host | None = None
    """The worker as the choice of its release depends on it; None: it takes none from central."""

    @property
    def serves(self) -> tuple[object, ...]:
        """Return the values that decide which jobs it can be offered."""
        return self.queues, dict(self.labels), self.bundles, bool(self.unfit), self.host

    @property
    def hashes(self) -> frozenset[str]:
        """Return the hashes of credentials by which it can be found."""
        return frozenset(h for h in (self.credential_hash, self.next_hash, self.past_hash) if h)


def record_of(worker: Worker) -> WorkerRecord:
    host = host_of(worker)
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
        next_hash=worker.next_hash,
        past_hash=worker.past_hash,
        suspended=worker.suspended_at is not None,
        issued_at=worker.credential_at or worker.created_at,
        expires_at=worker.credential_expires_at,
        labels=worker.labels or {},
        bundles=None if worker.bundles is None else tuple(worker.bundles),
        certificate=worker.certificate,
        received_revision=worker.received_revision,
        unfit="" if host is not None else worker.unfit or "",  # else each queue has its own runtime
        early_failures=worker.early_failures or 0,
        host=host,
        jobs_limit=worker.jobs_limit,
        release_host=release_host_of(worker),
    )


def _intent(worker: Worker) -> Intent:
    return Intent(
        IntentMode(worker.intent),
        worker.intent_revision,
        worker.slots_limit,
        worker.intent_reason,
        worker.rotate_asked_at is not None,
        worker.restart_asked_at is not None,
    )


def by_credentials(session: Session, hashes: Sequence[str]) -> dict[str, WorkerRecord]:
    """Return the workers whose present, previous or next credential has one of these *hashes*, by hash."""
    columns = (Worker.credential_hash, Worker.next_hash, Worker.past_hash)
    records = [record_of(worker) for worker in session.scalars(select(Worker).where(or_(*(c.in_(hashes) for c in columns))))]
    return {digest: record for record in records for digest in record.hashes if digest in hashes}


def changed_since(session: Session, since: datetime | None) -> list[WorkerRecord]:
    """Return the workers whose row changed at or after *since* (None: all)."""
    query = select(Worker)
    if since is not None:
        query = query.where(Worker.changed_at >= since)
    return [record_of(worker) for worker in session.scalars(query)]


def record_worker_event(session: Session, worker: Worker, kind: AuditKind, *, detail: str, now: datetime) -> None:
    """Record an event of the worker; one entry per kind and day."""
    cause = f"{worker.id} {now:%Y-%m-%d}"
    record(session, Event(kind, cause, detail, actor="worker", worker_id=worker.id, worker_name=worker.name))


def note_contact(session: Session, worker_ids: Sequence[str]) -> None:
    """Note that these workers made contact now. One statement for any number of workers."""
    session.execute(
        update(WorkerContact)
        .where(WorkerContact.worker_id.in_(worker_ids))
        .values(last_seen_at=database_clock(session))
        .execution_options(synchronize_session=False)
    )


def find_worker(session: Session, name: str) -> Worker:
    worker = session.scalar(select(Worker).where(Worker.name == name, Worker.removed_at.is_(None)).with_for_update())
    if worker is None:
        raise NotFound(f"there is no worker named {name!r}; `airflow remote workers list` shows all workers")
    return worker


def set_intent(
    session: Session, name: str, mode: IntentMode, *, by: str, reason: str = "", lasts: timedelta | None = None
) -> None:
    """Set the intent of a worker, permanently or for the time *lasts*. The worker receives it in its open poll.

    Raises:
        LedgerError: *lasts* is given for another mode than a pause, or is out of range.
    """
    if lasts is not None and (mode is not IntentMode.PAUSE or not timedelta() < lasts <= LONGEST_PAUSE):
        raise LedgerError(
            f"only a pause can have a duration, of more than 0 and at most {LONGEST_PAUSE.days} days; "
            f"this is {mode.value} for {lasts}"
        )
    worker = find_worker(session, name)
    worker.intent = mode.value
    worker.intent_reason = reason
    _mark_intent_changed(session, worker, by)
    worker.intent_until = None if lasts is None else database_now(session) + lasts
    until = "" if worker.intent_until is None else f" until {worker.intent_until:%Y-%m-%d %H:%M} UTC"
    record_action(session, by, f"set the intent to {mode.value}{until}{': ' + reason if reason else ''}", worker=worker)


def end_intents(session: Session) -> int:
    """End the pauses whose time is over: their workers serve again. Return how many."""
    query = (
        select(Worker).where(Worker.intent_until <= database_clock(session)).order_by(Worker.id).with_for_update(skip_locked=True)
    )
    over = session.scalars(query).all()
    for worker in over:
        worker.intent, worker.intent_reason, worker.intent_until = IntentMode.SERVE.value, "", None
        _mark_intent_changed(session, worker, CENTRAL)
        record_action(session, CENTRAL, "set the intent to serve: the pause is over", worker=worker)
    return len(over)


def note_received_intent(session: Session, worker_id: str, revision: int) -> WorkerRecord:
    """Note the revision of the intent that the worker has received."""
    worker = session.scalar(select(Worker).where(Worker.id == worker_id).with_for_update())
    if worker is None:
        raise Revoked("this worker was removed; join again with a new enrolment token")
    worker.received_revision = min(revision, worker.intent_revision)
    return record_of(worker)


def acknowledge(session: Session, name: str, *, by: str) -> None:
    """Clear the worker's alarm on behalf of a user. Its cause stays in the audit.

    Raises:
        LedgerError: the worker has no alarm, or is suspended (lifting the suspension clears the alarm).
    """
    worker = find_worker(session, name)
    if worker.suspended_at is not None:
        raise LedgerError(
            f"worker {name!r} is suspended; lift the suspension, which clears the alarm: airflow remote workers unsuspend {name}"
        )
    if not worker.alarm:
        raise LedgerError(f"worker {name!r} has no alarm; nothing was changed")
    record_action(session, by, f"cleared the alarm: {worker.alarm}", worker=worker)
    worker.alarm = ""
    worker.early_failures = 0


def limit_slots(session: Session, name: str, slots: int | None, *, by: str) -> None:
    """Limit the slots that a worker can fill (None: as many as it offers). Running jobs are not affected."""
    worker = find_worker(session, name)
    worker.slots_limit = slots
    _mark_intent_changed(session, worker, by)
    record_action(session, by, "removed the limit of slots" if slots is None else f"limited the slots to {slots}", worker=worker)


def set_queues(session: Session, name: str, queues: Sequence[str], *, by: str) -> None:
    """Set the queues that the worker serves, from its next offer on. Running jobs are not affected.

    Raises:
        LedgerError: no queue is named.
    """
    if not queues:
        raise LedgerError(
            f"name at least one queue; to give worker {name!r} no jobs, pause it: airflow remote workers pause {name}"
        )
    worker = find_worker(session, name)
    worker.queues = list(dict.fromkeys(queues))
    record_action(session, by, f"set the queues to {', '.join(worker.queues)}", worker=worker)
    _announce_rights(session, worker)


def set_labels(session: Session, name: str, labels: Mapping[str, str], *, by: str) -> None:
    """Replace the worker's labels."""
    worker = find_worker(session, name)
    worker.labels = dict(labels)
    record_action(
        session, by, f"set the labels to {', '.join(f'{key}={value}' for key, value in labels.items()) or 'none'}", worker=worker
    )
    _announce_rights(session, worker)


def set_bundles(session: Session, name: str, bundles: Sequence[str] | None, *, by: str) -> None:
    """Set the Dag bundles (globs; None: any) whose jobs the worker can run, from its next offer on. Running jobs stay.

    Raises:
        LedgerError: the list is empty, or a glob is not valid.
    """
    worker = find_worker(session, name)
    worker.bundles = check_bundles(bundles)
    record_action(session, by, f"set the bundles to {', '.join(worker.bundles or ['*'])}", worker=worker)
    _announce_rights(session, worker)


def _announce_rights(session: Session, worker: Worker) -> None:
    """Notify every API process that other jobs may fit the worker now."""
    worker.changed_at = stamp(session)
    wake(session, Topic.WORKER)
    wake(session, Topic.QUEUED)


def _mark_intent_changed(session: Session, worker: Worker, by: str) -> None:
    worker.intent_revision += 1
    worker.intent_by = by
    worker.intent_at = database_now(session)
    worker.changed_at = stamp(session)
    wake(session, Topic.WORKER)


def revoke_worker(session: Session, name: str, *, by: str = "unknown") -> None:
    """Revoke the worker's credential. Its jobs keep running until they are lost."""
    worker = find_worker(session, name)
    revoke(session, worker)
    record_action(session, by, "revoked the credential", worker=worker)


def remove_worker(session: Session, name: str, *, by: str = "unknown") -> None:
    """Remove a worker: its credential is revoked at once, it is no longer listed, and its name is free.

    Its row is deleted later (:func:`..retention.purge`), when every API process knows of the revocation.

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
    record_action(session, by, "removed the worker", worker=worker)
