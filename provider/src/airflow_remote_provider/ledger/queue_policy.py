"""Queue policies: the globs that people grant to every job of a queue, and whether the rest is denied or only recorded."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from sqlalchemy import select
from sqlalchemy.orm import Session

from airflow_remote_provider.compat import database_now
from airflow_remote_provider.grants import Grant, Kind
from airflow_remote_provider.ledger.audit import acted
from airflow_remote_provider.ledger.errors import LedgerError
from airflow_remote_provider.models import QueuePolicy

log = logging.getLogger(__name__)

ALL_QUEUES = "*"
"""Its policy holds for every queue, besides the queue's own."""


class Mode(str, Enum):
    """What becomes of an ask that nothing grants."""

    ENFORCE = "enforce"
    AUDIT = "audit"
    """Let through, and recorded."""


class BadGlob(LedgerError):
    """What should be granted or withdrawn is no glob, or was never granted."""


@dataclass(frozen=True)
class Policy:
    """What holds for the jobs of one queue."""

    mode: Mode
    grant: Grant


def policy_of(session: Session, queue: str) -> Policy:
    """Return the policy of *queue*, that of all queues included."""
    rows = {row.queue: row for row in session.scalars(select(QueuePolicy).where(QueuePolicy.queue.in_((queue, ALL_QUEUES))))}
    own, everywhere = rows.get(queue), rows.get(ALL_QUEUES)
    mode = (own and own.mode) or (everywhere and everywhere.mode) or Mode.ENFORCE
    grant = Grant()
    for row in rows.values():
        grant |= Grant({kind: frozenset(row.globs.get(kind.value, ())) for kind in Kind})
    return Policy(Mode(mode), grant)


def allow(session: Session, queue: str, globs: Mapping[Kind, Sequence[str]], *, by: str) -> PolicyRow:
    """Grant *globs* to every job of *queue*, from its next question on.

    Raises:
        BadGlob: one is empty or too long.
    """
    for pattern in (pattern for some in globs.values() for pattern in some):
        if not pattern.strip() or len(pattern) > LONGEST_GLOB:
            raise BadGlob(f"{pattern[:50]!r} is no glob of 1 to {LONGEST_GLOB} characters")
    row = _locked(session, queue)
    row.globs = {kind.value: sorted({*row.globs.get(kind.value, ()), *globs.get(kind, ())}) for kind in Kind}
    return _changed(session, row, "allow", by, globs)


def deny(session: Session, queue: str, globs: Mapping[Kind, Sequence[str]], *, by: str) -> PolicyRow:
    """Take *globs* back. What a task's own definition names stays granted.

    Raises:
        BadGlob: the queue's policy has no such glob; nothing has changed.
    """
    row = _locked(session, queue)
    for kind, some in globs.items():
        if missing := set(some) - set(row.globs.get(kind.value, ())):
            has = ", ".join(row.globs.get(kind.value, ())) or "none"
            raise BadGlob(f"the policy of the queue {queue!r} has no {kind.value} {min(missing)!r} to take back; it has: {has}")
    row.globs = {kind.value: sorted(set(row.globs.get(kind.value, ())) - set(globs.get(kind, ()))) for kind in Kind}
    return _changed(session, row, "deny", by, globs)


def set_mode(session: Session, queue: str, mode: Mode, *, by: str) -> PolicyRow:
    """Deny what is not granted to jobs of *queue*, or only record it."""
    row = _locked(session, queue)
    row.mode = mode.value
    return _changed(session, row, f"mode {mode.value}", by, {})


@dataclass(frozen=True)
class PolicyRow:
    """One queue's policy as people see it."""

    queue: str
    mode: str | None
    connections: list[str]
    variables: list[str]
    writes: list[str]
    xcoms_of: list[str]
    dags: list[str]
    assets: list[str]
    triggers: list[str]
    changed_at: datetime
    changed_by: str


def list_policies(session: Session) -> list[PolicyRow]:
    return [_as_row(row) for row in session.scalars(select(QueuePolicy).order_by(QueuePolicy.queue))]


LONGEST_GLOB = 500


def _locked(session: Session, queue: str) -> QueuePolicy:
    """Return the queue's policy, locked; a new one, if it has none."""
    if not queue or len(queue) > 256:
        raise BadGlob(f"{queue[:50]!r} is no name of a queue; {ALL_QUEUES!r} stands for all of them")
    row = session.scalar(select(QueuePolicy).where(QueuePolicy.queue == queue).with_for_update())
    if row is None:
        row = QueuePolicy(queue=queue, mode=None, globs={}, changed_at=database_now(session), changed_by="")
        session.add(row)
    return row


def _changed(session: Session, row: QueuePolicy, what: str, by: str, globs: Mapping[Kind, Sequence[str]]) -> PolicyRow:
    row.changed_at, row.changed_by = database_now(session), by
    session.flush()
    said = {kind.value: list(some) for kind, some in globs.items() if some}
    acted(session, by, f"changed the policy of the queue {row.queue}: {what} {said or ''}".rstrip())
    log.warning("The policy of the queue %r was changed by %s: %s %s", row.queue, by, what, said or "")
    return _as_row(row)


def _as_row(row: QueuePolicy) -> PolicyRow:
    globs = {kind.value: list(row.globs.get(kind.value, ())) for kind in Kind}
    return PolicyRow(queue=row.queue, mode=row.mode, changed_at=row.changed_at, changed_by=row.changed_by, **globs)
