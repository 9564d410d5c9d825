"""Airflow's own heartbeat of remote tasks."""

from __future__ import annotations

import uuid
from datetime import timedelta

import pytest
from sqlalchemy import Engine, select

from testkit.ledger import (  # isort: skip
    TaskInstance,
    ago,
    change_job,
    change_task,
    record_statements,
    enlist,
    job_row,
    queued,
    running,
    substitute,
)

from airflow_remote_provider import compat
from airflow_remote_provider.ledger import (
    heartbeats,
)

pytestmark = pytest.mark.usefixtures("database")


def _do(verb: object, *args: object, **kwargs: object) -> object:
    with compat.transaction() as session:
        return verb(session, *args, **kwargs)  # type: ignore[operator]


def _task(job_id: str) -> TaskInstance:
    with compat.transaction() as session:
        task = session.get(TaskInstance, job_row(job_id).ti_id)
    assert task is not None
    return task


def test_a_heartbeat_is_fresh_by_the_clock_of_the_scheduler(monkeypatch: pytest.MonkeyPatch) -> None:
    lease = running(enlist())
    substitute(monkeypatch, "database_clock", lambda session, after=timedelta(): ago(days=1))
    _do(heartbeats.refresh_heartbeats)
    heartbeat = _task(lease.job_id).last_heartbeat_at
    assert heartbeat is not None and heartbeat > ago(seconds=30), "the database's clock was set back"


def test_two_updates_refresh_the_whole_fleet(database: Engine) -> None:
    leased = [running(enlist(f"w{i}")) for i in range(3)]
    with record_statements(database) as statements:
        assert _do(heartbeats.refresh_heartbeats) == 3
    assert len([statement for statement in statements if statement.startswith("UPDATE")]) == 2
    assert len(statements) <= 4, "at most the clock besides"
    for lease in leased:
        heartbeat = _task(lease.job_id).last_heartbeat_at
        assert heartbeat is not None and heartbeat > ago(seconds=30)


def test_the_heartbeat_of_a_cleared_task_is_refreshed_until_its_job_has_ended() -> None:
    """Airflow gives the task a new id and waits for the end of the old one, or until its heartbeat times out."""
    worker = enlist()
    over, cleared = running(worker), running(worker)
    for lease in (over, cleared):
        change_task(job_row(lease.job_id).ti_id, id=uuid.uuid4(), state="restarting")
    change_job(over.job_id, state="revoked")
    assert _do(heartbeats.refresh_heartbeats) == 1
    with compat.transaction() as session:
        [refreshed] = session.scalars(select(TaskInstance).where(TaskInstance.last_heartbeat_at.is_not(None)))
    assert refreshed.external_executor_id == cleared.job_id


def test_only_tasks_of_running_jobs_are_refreshed() -> None:
    worker = enlist()
    waiting, lost, other_state = queued("elsewhere"), running(worker), running(worker)
    change_job(lost.job_id, state="lost")
    change_task(job_row(other_state.job_id).ti_id, state="failed")
    assert _do(heartbeats.refresh_heartbeats) == 0
    for job_id in (waiting.job_id, lost.job_id, other_state.job_id):
        assert _task(job_id).last_heartbeat_at is None
