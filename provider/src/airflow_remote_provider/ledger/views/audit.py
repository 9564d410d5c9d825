"""The audit as one list, newest first: recorded events, and requests of jobs at the gateway."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, String, cast, literal, or_, select
from sqlalchemy.orm import Session

from airflow_remote_provider.ledger.audit import AuditKind
from airflow_remote_provider.ledger.views.page import FIRST, BadPage, Order, Page, Slice, cursor
from airflow_remote_provider.ledger.views.scope import EVERYTHING, Scope
from airflow_remote_provider.models import Access, AuditEntry, Worker

ASKED = {"granted": AuditKind.SECRET_READ, "denied": AuditKind.DENIED, "audited": AuditKind.WOULD_DENY}
"""The kind of audit entry for an access, by its answer."""

ACCESS = (
    Access.job_id + literal("/", String) + Access.kind + literal("/", String) + Access.name + literal("/", String) + Access.answer
)
"""The key of an access as one text, to break ties."""


@dataclass(frozen=True)
class AuditRow:
    """One entry of the audit as the API and the CLI show it."""

    at: datetime
    kind: str
    worker: str | None
    job_id: str | None
    actor: str
    times: int
    first_at: datetime
    detail: str


@dataclass(frozen=True)
class AuditFilter:
    """Selects entries; an empty field selects all."""

    kind: Sequence[str] = ()
    worker: str = ""
    job_id: str = ""


def list_entries(
    session: Session, *, only: AuditFilter = AuditFilter(), page: Page = FIRST, scope: Scope = EVERYTHING
) -> Slice[AuditRow]:
    """Return a page of the newest entries, including requests of jobs. Two statements.

    Raises:
        BadPage: the list has no such order, or the cursor does not belong to it.
    """
    if page.order not in ("", "-at"):
        raise BadPage(f"the audit has no order by {page.order[:50]!r}; it has: -at")
    kinds = list(
        heapq.merge(
            _entries(session, only=only, page=page, scope=scope),
            _accesses(session, only=only, page=page, scope=scope),
            key=_place,
        )
    )
    rows = [row for _, row in kinds[: page.limit]]
    if len(kinds) <= page.limit:
        return Slice(rows, None)
    (_, unique), last = kinds[page.limit - 1]
    return Slice(rows, cursor("-at", last.at, unique))


Placed = tuple[tuple[float, str], AuditRow]
"""A row, and its place in the list: the newest first, then by key."""


def _place(placed: Placed) -> tuple[float, str]:
    return placed[0]


def _entries(session: Session, *, only: AuditFilter, page: Page, scope: Scope) -> Iterator[Placed]:
    query = select(AuditEntry)
    if only.kind:
        query = query.where(AuditEntry.kind.in_(only.kind))
    if only.worker:
        query = query.where(AuditEntry.worker_name == only.worker)
    if only.job_id:
        query = query.where(AuditEntry.job_id == only.job_id)
    if scope.teams is not None:
        others = select(Worker.id).where(~scope.sees_team(Worker.team))
        query = query.where(or_(AuditEntry.worker_id.is_(None), AuditEntry.worker_id.not_in(others)))
    for found in _newest(session, query, at=AuditEntry.__table__.c.at, unique=AuditEntry.__table__.c.id, page=page):
        entry: AuditEntry = found.AuditEntry
        row = AuditRow(
            at=entry.at,
            kind=entry.kind,
            worker=entry.worker_name,
            job_id=entry.job_id,
            actor=entry.actor,
            times=entry.times,
            first_at=entry.first_at,
            detail=entry.detail,
        )
        yield (-entry.at.timestamp(), found.order_key), row


def _accesses(session: Session, *, only: AuditFilter, page: Page, scope: Scope) -> Iterator[Placed]:
    query = select(Access).where(scope.sees_dag(Access.dag_id))
    if only.kind:
        query = query.where(Access.answer.in_([answer for answer, asked in ASKED.items() if asked.value in only.kind]))
    if only.worker:
        query = query.where(Access.worker_name == only.worker)
    if only.job_id:
        query = query.where(Access.job_id == only.job_id)
    for found in _newest(session, query, at=Access.__table__.c.at, unique=cast(ACCESS, String(400)), page=page):
        access: Access = found.Access
        whose = f"{access.dag_id}.{access.task_id} (try {access.try_number}, run {access.run_id})"
        row = AuditRow(
            at=access.at,
            kind=ASKED[access.answer].value,
            worker=access.worker_name,
            job_id=access.job_id,
            actor="worker",
            times=1,
            first_at=access.at,
            detail=f"{access.kind} {access.name!r} for {whose}",
        )
        yield (-access.at.timestamp(), found.order_key), row


def _newest(
    session: Session, query: Select[Any], *, at: ColumnElement[datetime], unique: ColumnElement[str], page: Page
) -> Sequence[Any]:
    """Return the rows of the page, and one more if there are more."""
    order = Order({"at": at}, unique=unique, nature="-at")
    return order.rows(session, query, page)
