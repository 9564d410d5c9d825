"""The audit: one row per cause, newest first, for as long as it is kept."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import update

from testkit.ledger import ago, audit_entries  # isort: skip

from airflow_remote_provider import compat
from airflow_remote_provider.ledger import audit
from airflow_remote_provider.ledger.audit import AuditKind, Event
from airflow_remote_provider.models import AuditEntry

pytestmark = pytest.mark.usefixtures("database")


def _record(kind: AuditKind = AuditKind.CLONE, cause: str = "a cause", detail: str = "it happened", **about: str) -> None:
    with compat.transaction() as session:
        audit.record(session, Event(kind, cause, detail, **about))  # type: ignore[arg-type]


def test_an_event_is_stored_with_all_its_fields() -> None:
    _record(AuditKind.JOB_LOST, "j", "silent", worker_id="w", worker_name="edge-1", job_id="j", actor="central")
    (row,) = audit_entries()
    assert (row.kind, row.worker, row.job_id, row.actor, row.times, row.detail) == (
        "job-lost",
        "edge-1",
        "j",
        "central",
        1,
        "silent",
    )
    assert row.first_at == row.at


def test_a_repeated_cause_increments_its_counter() -> None:
    for number in range(50):
        _record(detail=f"time {number}")
    (row,) = audit_entries()
    assert (row.times, row.detail) == (50, "time 49")
    assert row.at > row.first_at


def test_another_kind_or_cause_makes_another_row() -> None:
    _record(AuditKind.CLONE, "x")
    _record(AuditKind.TAKEOVER, "x")
    _record(AuditKind.CLONE, "y")
    assert len(audit_entries()) == 3


def test_a_long_detail_is_cut() -> None:
    _record(detail="x" * 100_000)
    assert len(audit_entries()[0].detail) == audit.LONGEST_DETAIL


def test_entries_are_filtered_and_listed_newest_first() -> None:
    _record(AuditKind.JOB_LOST, "1", worker_name="edge-1", job_id="1")
    _record(AuditKind.JOB_LOST, "2", worker_name="edge-2", job_id="2")
    _record(AuditKind.CLONE, "3", worker_name="edge-2")
    assert [row.kind for row in audit_entries(worker="edge-2")] == ["clone", "job-lost"]
    assert [row.job_id for row in audit_entries("job-lost")] == ["2", "1"]
    assert [row.worker for row in audit_entries(job_id="1")] == ["edge-1"]


def test_old_entries_are_deleted() -> None:
    _record(cause="old")
    with compat.transaction() as session:
        session.execute(update(AuditEntry).values(at=ago(days=91)))
    _record(cause="new")
    with compat.transaction() as session:
        assert audit.purge(session, older_than=timedelta(days=90)) == 1
    assert len(audit_entries()) == 1
