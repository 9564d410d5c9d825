"""Requests of jobs at the gateway that were granted or denied, newest first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import String, cast, select
from sqlalchemy.orm import Session

from airflow_remote_provider.ledger.views.audit import ACCESS
from airflow_remote_provider.ledger.views.page import FIRST, Order, Page, Slice
from airflow_remote_provider.ledger.views.scope import EVERYTHING, Scope
from airflow_remote_provider.models import Access


@dataclass(frozen=True)
class AccessRow:
    """One request of a job."""

    at: datetime
    answer: str
    kind: str
    name: str
    worker: str | None
    queue: str
    dag_id: str
    run_id: str
    task_id: str
    map_index: int
    try_number: int
    job_id: str


@dataclass(frozen=True)
class AccessFilter:
    """Selects accesses; an empty field selects all."""

    dag_id: str = ""
    job_id: str = ""
    worker: str = ""
    answers: Sequence[str] = ()


def list_accesses(
    session: Session, *, only: AccessFilter = AccessFilter(), page: Page = FIRST, scope: Scope = EVERYTHING
) -> Slice[AccessRow]:
    """Return a page of accesses. One statement.

    Raises:
        BadPage: the list has no such order, or the cursor does not belong to it.
    """
    query = select(Access).where(scope.sees_dag(Access.dag_id))
    equal = {Access.dag_id: only.dag_id, Access.job_id: only.job_id, Access.worker_name: only.worker}
    query = query.where(*(column == value for column, value in equal.items() if value))
    if only.answers:
        query = query.where(Access.answer.in_(only.answers))
    order = Order({"at": Access.__table__.c.at}, unique=cast(ACCESS, String(400)), nature="-at")
    found = order.read(session, query, page)
    return Slice([_row(row.Access) for row in found.rows], found.next)


def _row(access: Access) -> AccessRow:
    return AccessRow(
        at=access.at,
        answer=access.answer,
        kind=access.kind,
        name=access.name,
        worker=access.worker_name,
        queue=access.queue,
        dag_id=access.dag_id,
        run_id=access.run_id,
        task_id=access.task_id,
        map_index=access.map_index,
        try_number=access.try_number,
        job_id=access.job_id,
    )
