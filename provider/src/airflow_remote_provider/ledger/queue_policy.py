"""Queue policies: the globs granted to every job of a queue, and whether other requests are denied or only recorded."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from fnmatch import fnmatchcase

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from airflow_remote_provider.definitions.grants import Grant, GrantKind
from airflow_remote_provider.ledger.audit import record_action
from airflow_remote_provider.ledger.credentials import check_bundles
from airflow_remote_provider.ledger.errors import LedgerError
from airflow_remote_provider.ledger.fence import WorkerLease
from airflow_remote_provider.ledger.queues import ALL_QUEUES, lock_queue
from airflow_remote_provider.models import Deferral, Job, Queue
from airflow_remote_provider.placeholder_names import OURS

log = logging.getLogger(__name__)


class Mode(str, Enum):
    """What happens to a request that nothing grants."""

    ENFORCE = "enforce"
    AUDIT = "audit"
    """Allowed, and recorded."""


class BadGlob(LedgerError):
    """A glob to grant or to withdraw is not valid, or was never granted."""


@dataclass(frozen=True)
class Policy:
    """The policy in force for the jobs of one queue."""

    mode: Mode
    grant: Grant


def policy_of(session: Session, queue: str) -> Policy:
    """Return the policy of *queue*, including that of all queues."""
    rows = {row.name: row for row in session.scalars(select(Queue).where(Queue.name.in_((queue, ALL_QUEUES))))}
    own, everywhere = rows.get(queue), rows.get(ALL_QUEUES)
    mode = (own and own.mode) or (everywhere and everywhere.mode) or Mode.ENFORCE
    grant = Grant()
    for row in rows.values():
        grant |= Grant({kind: frozenset(_globs(row, kind)) for kind in GrantKind})
    return Policy(Mode(mode), grant)


def allow(session: Session, queue: str, globs: Mapping[GrantKind, Sequence[str]], *, by: str) -> PolicyRow:
    """Grant *globs* to every job of *queue*, from its next request on.

    Raises:
        BadGlob: no glob is named, or one is empty or too long.
        LedgerError: *queue* is not a valid name of a queue.
    """
    _require_some(globs)
    for pattern in (pattern for some in globs.values() for pattern in some):
        if not pattern.strip() or len(pattern) > LONGEST_GLOB:
            raise BadGlob(f"{pattern[:50]!r} is not a valid glob: write 1 to {LONGEST_GLOB} characters")
    for classpath in globs.get(GrantKind.CODE_ON_CENTRAL, ()):
        if not CLASSPATH.fullmatch(classpath):
            raise BadGlob(
                f"{classpath[:50]!r} is not the import path of a class; name each class to run on central in full, without a glob"
            )
        if classpath.startswith(OURS):
            raise BadGlob(
                f"{classpath[:80]!r} is a class of the Remote Executor itself, which cannot be listed as code on central"
            )
    row = lock_queue(session, queue, by=by)
    row.globs = {kind.value: sorted({*_globs(row, kind), *globs.get(kind, ())}) for kind in GrantKind}
    return _changed(session, row, what="allow", globs=globs)


def deny(session: Session, queue: str, globs: Mapping[GrantKind, Sequence[str]], *, by: str) -> PolicyRow:
    """Withdraw *globs*. Names in a task's own definition stay granted.

    Raises:
        BadGlob: no glob is named, or the queue's policy has no such glob; nothing has changed.
    """
    _require_some(globs)
    row = lock_queue(session, queue, by=by)
    for kind, some in globs.items():
        if missing := set(some) - set(_globs(row, kind)):
            has = ", ".join(_globs(row, kind)) or "none"
            raise BadGlob(f"the policy of the queue {queue!r} has no {kind.value} {min(missing)!r} to take back; it has: {has}")
    row.globs = {kind.value: sorted(set(_globs(row, kind)) - set(globs.get(kind, ()))) for kind in GrantKind}
    return _changed(session, row, what="deny", globs=globs)


def set_mode(session: Session, queue: str, mode: Mode, *, by: str) -> PolicyRow:
    """Set whether requests that are not granted to jobs of *queue* are denied or only recorded."""
    row = lock_queue(session, queue, by=by)
    row.mode = mode.value
    return _changed(session, row, what=f"mode {mode.value}", globs={})


def runs_on_central(session: Session, lease: WorkerLease, *, classpath: str, body: bytes) -> tuple[bool, bool]:
    """Return whether central's triggerer runs this trigger class for the job, and whether an earlier call decided that.

    The first call decides, by the classes that administrators have listed for the job's queue. A repeat with the same *body* gets
    the decision stored with the wait, because Airflow's row may have been written by then. Another body is not a repeat.
    """
    own = select(Job).where(Job.id == lease.job_id, Job.worker_id == lease.worker_id, Job.epoch == lease.epoch)
    job = session.scalar(own)
    if job is None:
        return False, False
    if job.concluded_as == hashlib.sha256(body).hexdigest():
        wait = session.get(Deferral, job.ti_id)
        if wait is not None and wait.deferred_by == job.id:
            return wait.classpath is None, True
    listed = policy_of(session, job.queue).grant.globs.get(GrantKind.CODE_ON_CENTRAL, frozenset())
    return classpath in listed and not classpath.startswith(OURS), False


@dataclass(frozen=True)
class BundleRules:
    """Which Dag bundles the jobs of each queue may belong to: globs by queue; a queue that is not listed may run any."""

    globs: Mapping[str, tuple[str, ...]]

    def refusal(self, queue: str, bundle: str | None) -> str | None:
        """Return why a job of this queue may not run code of *bundle*, for users; None if it may. A queue's own rule overrides
        that of all queues. Jobs without a bundle, such as connection tests, may run in any queue.
        """
        ruled_by = queue if queue in self.globs else ALL_QUEUES
        if bundle is None or ruled_by not in self.globs or any(fnmatchcase(bundle, glob) for glob in self.globs[ruled_by]):
            return None
        allowed = ", ".join(self.globs[ruled_by])
        whose = f"the queue {queue!r}" if ruled_by == queue else "all queues"
        return (
            f"jobs of the queue {queue!r} may not run code of the Dag bundle {bundle!r}: the rule of {whose} allows {allowed}. "
            f"Give the task another queue, or change the rule: airflow remote queues set {ruled_by!r} --bundles …"
        )


def bundle_rules(session: Session) -> BundleRules:
    """Return the rules of all queues. A handful of rows."""
    rows = session.execute(select(Queue.name, Queue.bundles).where(Queue.bundles.is_not(None)))
    return BundleRules({row.name: tuple(row.bundles or ()) for row in rows})


def set_bundles(session: Session, queue: str, bundles: Sequence[str] | None, *, by: str) -> None:
    """Set the Dag bundles (globs; None: any) that jobs of *queue* may belong to. Applies to jobs queued from now on.

    Raises:
        LedgerError: the list is empty, a glob is not valid, or *queue* is not a valid name of a queue.
    """
    globs = check_bundles(bundles)
    lock_queue(session, queue, by=by).bundles = globs
    record_action(session, by, f"set the bundles of the queue {queue} to {', '.join(globs or ['*'])}")


@dataclass(frozen=True)
class PolicyRow:
    """The policy of one queue as the API and the CLI show it."""

    queue: str
    mode: str | None
    connections: list[str]
    variables: list[str]
    writes: list[str]
    xcoms_of: list[str]
    dags: list[str]
    trigger_dags: list[str]
    assets: list[str]
    asset_writes: list[str]
    code_on_central: list[str]
    changed_at: datetime
    changed_by: str


def list_policies(session: Session) -> list[PolicyRow]:
    rows = session.scalars(select(Queue).where(or_(Queue.mode.is_not(None), Queue.globs.is_not(None))).order_by(Queue.name))
    return [_as_row(row) for row in rows]


LONGEST_GLOB = 500
CLASSPATH = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)+")


def _require_some(globs: Mapping[GrantKind, Sequence[str]]) -> None:
    if not any(globs.values()):
        raise BadGlob(f"name at least one of {', '.join(kind.value for kind in GrantKind)}")


def _globs(row: Queue, kind: GrantKind) -> list[str]:
    return (row.globs or {}).get(kind.value, [])


def _changed(session: Session, row: Queue, *, what: str, globs: Mapping[GrantKind, Sequence[str]]) -> PolicyRow:
    session.flush()
    changes = {kind.value: list(some) for kind, some in globs.items() if some}
    record_action(session, row.changed_by, f"changed the policy of the queue {row.name}: {what} {changes or ''}".rstrip())
    log.warning("The policy of the queue %r was changed by %s: %s %s", row.name, row.changed_by, what, changes or "")
    return _as_row(row)


def _as_row(row: Queue) -> PolicyRow:
    globs = {kind.value: _globs(row, kind) for kind in GrantKind}
    return PolicyRow(queue=row.name, mode=row.mode, changed_at=row.changed_at, changed_by=row.changed_by, **globs)
