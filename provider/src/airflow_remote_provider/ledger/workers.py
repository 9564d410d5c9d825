"""Workers: sessions, intents, what API processes remember of them, and the reads of people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from airflow_remote_protocol.messages import Intent, IntentMode
from airflow_remote_protocol.states import JobState
from sqlalchemy import func, or_, select, update
from sqlalchemy.orm import Session

from airflow_remote_provider.compat import database_clock, database_now
from airflow_remote_provider.ledger.audit import AuditKind, Event, acted, record
from airflow_remote_provider.ledger.changes import stamp
from airflow_remote_provider.ledger.credentials import checked_bundles, revoke
from airflow_remote_provider.ledger.errors import LedgerError, Revoked, Unknown
from airflow_remote_provider.ledger.wakeup import Topic, wake
from airflow_remote_provider.models import Job, Worker, WorkerContact

LONGEST_PAUSE = timedelta(days=366)
CENTRAL = "central"
"""Who acts where nobody does."""


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

    @property
    def serves(self) -> tuple[object, ...]:
        """Return what decides which jobs it may be offered."""
        return self.queues, dict(self.labels), self.bundles, bool(self.unfit)

    @property
    def hashes(self) -> frozenset[str]:
        """Return what it may be found by."""
        return frozenset(h for h in (self.credential_hash, self.next_hash, self.past_hash) if h)


def record_of(worker: Worker) -> WorkerRecord:
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
        unfit=worker.unfit or "",
        early_failures=worker.early_failures or 0,
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
    """Return the workers that these credentials belong to, did, or will, by the credential's hash."""
    columns = (Worker.credential_hash, Worker.next_hash, Worker.past_hash)
    records = [record_of(worker) for worker in session.scalars(select(Worker).where(or_(*(c.in_(hashes) for c in columns))))]
    return {digest: record for record in records for digest in record.hashes if digest in hashes}


def changed_since(session: Session, since: datetime | None) -> list[WorkerRecord]:
    """Return the workers whose row changed at or after *since* (None: all)."""
    query = select(Worker)
    if since is not None:
        query = query.where(Worker.changed_at >= since)
    return [record_of(worker) for worker in session.scalars(query)]


def note_change_of(session: Session, worker: Worker, kind: AuditKind, detail: str, now: datetime) -> None:
    """Write down what the worker did: a row a day, however often."""
    cause = f"{worker.id} {now:%Y-%m-%d}"
    record(session, Event(kind, cause, detail, actor="worker", worker_id=worker.id, worker_name=worker.name))


def seen(session: Session, worker_ids: Sequence[str]) -> None:
    """Note a contact of these workers, now. One statement, whatever the fleet."""
    session.execute(
        update(WorkerContact)
        .where(WorkerContact.worker_id.in_(worker_ids))
        .values(last_seen_at=database_clock(session))
        .execution_options(synchronize_session=False)
    )


def find_worker(session: Session, name: str) -> Worker:
    worker = session.scalar(select(Worker).where(Worker.name == name, Worker.removed_at.is_(None)).with_for_update())
    if worker is None:
        raise Unknown(f"there is no worker named {name!r}; `airflow remote workers list` shows those there are")
    return worker


def set_intent(
    session: Session, name: str, mode: IntentMode, *, by: str, reason: str = "", lasts: timedelta | None = None
) -> None:
    """Store people's wish, for good or for as long as it *lasts*; the worker hears of it in its open poll.

    Raises:
        LedgerError: only a pause can end by itself, and not at once nor after years.
    """
    if lasts is not None and (mode is not IntentMode.PAUSE or not timedelta() < lasts <= LONGEST_PAUSE):
        raise LedgerError(
            f"only a pause can end by itself, after more than nothing and at most {LONGEST_PAUSE.days} days; "
            f"this is {mode.value} for {lasts}"
        )
    worker = find_worker(session, name)
    worker.intent = mode.value
    worker.intent_reason = reason
    _wished(session, worker, by)
    worker.intent_until = None if lasts is None else database_now(session) + lasts
    until = "" if worker.intent_until is None else f" until {worker.intent_until:%Y-%m-%d %H:%M} UTC"
    acted(session, by, f"wants it to {mode.value}{until}{': ' + reason if reason else ''}", worker)


def end_wishes(session: Session) -> int:
    """Let those serve again whose pause is over. Return how many."""
    now = database_now(session)
    query = select(Worker).where(Worker.intent_until <= now).order_by(Worker.id).with_for_update(skip_locked=True)
    over = session.scalars(query).all()
    for worker in over:
        worker.intent, worker.intent_reason, worker.intent_until = IntentMode.SERVE.value, "", None
        _wished(session, worker, CENTRAL)
        acted(session, CENTRAL, "wants it to serve: its pause is over", worker)
    return len(over)


def note_heard(session: Session, worker_id: str, revision: int) -> WorkerRecord:
    """Note which of people's wishes the worker acts by."""
    worker = session.scalar(select(Worker).where(Worker.id == worker_id).with_for_update())
    if worker is None:
        raise Revoked("this worker was removed; join again with a new enrolment token")
    worker.received_revision = min(revision, worker.intent_revision)
    return record_of(worker)


def acknowledge(session: Session, name: str, *, by: str) -> None:
    """Clear the worker's alarm: somebody has looked at it. What raised it stays in the audit.

    Raises:
        LedgerError: there is none, or it is suspended, which is lifted with the alarm.
    """
    worker = find_worker(session, name)
    if worker.suspended_at is not None:
        raise LedgerError(f"worker {name!r} is suspended; to lift that, and its alarm: airflow remote workers unsuspend {name}")
    if not worker.alarm:
        raise LedgerError(f"worker {name!r} has no alarm; nothing was changed")
    acted(session, by, f"cleared its alarm: {worker.alarm}", worker)
    worker.alarm = ""
    worker.early_failures = 0


def limit_slots(session: Session, name: str, slots: int | None, *, by: str) -> None:
    """Bound the slots that a worker may fill (None: what it offers itself). Running jobs are not touched."""
    worker = find_worker(session, name)
    worker.slots_limit = slots
    _wished(session, worker, by)
    acted(session, by, "lifted its limit of slots" if slots is None else f"limited it to {slots} slots", worker)


def set_queues(session: Session, name: str, queues: Sequence[str], *, by: str) -> None:
    """Let the worker serve these queues, from its next offer on. Running jobs are not touched.

    Raises:
        LedgerError: no queue is named.
    """
    if not queues:
        raise LedgerError(
            f"name at least one queue; to give worker {name!r} nothing, pause it: airflow remote workers pause {name}"
        )
    worker = find_worker(session, name)
    worker.queues = list(dict.fromkeys(queues))
    acted(session, by, f"lets it serve {', '.join(worker.queues)}", worker)
    _serves_others(session, worker)


def set_labels(session: Session, name: str, labels: Mapping[str, str], *, by: str) -> None:
    """Give the worker these labels in place of those it has."""
    worker = find_worker(session, name)
    worker.labels = dict(labels)
    acted(session, by, f"labelled it {', '.join(f'{key}={value}' for key, value in labels.items()) or 'with nothing'}", worker)
    _serves_others(session, worker)


def set_bundles(session: Session, name: str, bundles: Sequence[str] | None, *, by: str) -> None:
    """Let the worker have jobs of these Dag bundles only (globs; None: of any), from its next offer on. Running jobs stay.

    Raises:
        LedgerError: an empty list, or what is no glob.
    """
    worker = find_worker(session, name)
    worker.bundles = checked_bundles(bundles)
    acted(session, by, f"lets it have the bundles {', '.join(worker.bundles or ['*'])}", worker)
    _serves_others(session, worker)


def _serves_others(session: Session, worker: Worker) -> None:
    """Have every API process hear that other jobs may fit it now."""
    worker.changed_at = stamp(session)
    wake(session, Topic.WORKER)
    wake(session, Topic.QUEUED)


def _wished(session: Session, worker: Worker, by: str) -> None:
    worker.intent_revision += 1
    worker.intent_by = by
    worker.intent_at = database_now(session)
    worker.changed_at = stamp(session)
    wake(session, Topic.WORKER)


def revoke_worker(session: Session, name: str, *, by: str = "unknown") -> None:
    """End the worker's right to speak. Its jobs run on until they are lost or it is let in again."""
    worker = find_worker(session, name)
    revoke(session, worker)
    acted(session, by, "revoked its credential", worker)


def remove_worker(session: Session, name: str, *, by: str = "unknown") -> None:
    """Forget a worker: revoked at once, no longer listed, its name free. The row is deleted later
    (:func:`..retention.purge`), when every API process knows of the revocation.

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
    acted(session, by, "removed it", worker)
