"""The usage of resources that workers report of their machines and jobs."""

from __future__ import annotations

from collections.abc import Collection
from datetime import timedelta

from airflow_remote_protocol.codec import decode, encode
from airflow_remote_protocol.messages import Usage as ReportedUsage
from sqlalchemy import select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from airflow_remote_provider.compat import database_clock, database_now
from airflow_remote_provider.models import Usage

FRESH = timedelta(minutes=5)
"""Older reports say nothing about the present. Longer than the report interval, unless thousands of workers are busy."""


def note(session: Session, worker_id: str, usage: ReportedUsage) -> None:
    """Store the worker's report in place of the previous one. One statement, except for the first report."""
    values = {"at": database_clock(session), "report": encode(usage).decode()}
    change = update(Usage).where(Usage.worker_id == worker_id).values(values)
    if session.execute(change).rowcount:  # type: ignore[attr-defined]
        return
    try:
        with session.begin_nested():
            session.add(Usage(worker_id=worker_id, at=database_now(session), report=values["report"]))
    except IntegrityError:
        session.execute(change)  # two first reports arrived at once


def fresh(session: Session, worker_ids: Collection[str]) -> dict[str, ReportedUsage]:
    """Return the last reports of these workers that are not older than :data:`FRESH`, by worker id. Two statements."""
    since = database_now(session) - FRESH
    query = select(Usage.worker_id, Usage.report).where(Usage.worker_id.in_(worker_ids), Usage.at >= since)
    return {row.worker_id: decode(ReportedUsage, row.report.encode()) for row in session.execute(query)}
