"""Reported usage of workers and jobs: stored, shown while it is fresh, and deleted with the worker."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import Engine, func, select, update

from testkit.ledger import ago, record_statements, enlist, offered, running  # isort: skip

from airflow_remote_protocol.messages import JobUsage, MachineUsage, Usage
from airflow_remote_provider import compat, models
from airflow_remote_provider.ledger import retention, usage
from airflow_remote_provider.ledger.views.jobs import list_jobs, show_job
from airflow_remote_provider.ledger.views.workers import list_workers, show_worker

pytestmark = pytest.mark.usefixtures("database")

SILENT = timedelta(seconds=90)
MACHINE = MachineUsage(cpus=1.5, cpu_count=4, memory=2 << 30, memory_total=8 << 30, disk_free=1 << 40)


def _note(worker_id: str, **jobs: float) -> None:
    with compat.transaction() as session:
        usage.note(session, worker_id, Usage(MACHINE, {job_id: JobUsage(cpus, 1 << 20) for job_id, cpus in jobs.items()}))


def _seen(job_id: str) -> float | None:
    with compat.transaction() as session:
        shown = show_job(session, job_id).usage
        return shown.cpus if shown else None


def test_the_newest_report_is_shown_for_the_worker_and_its_job() -> None:
    worker = enlist("edge")
    job = running(worker)
    _note(worker.id, **{job.job_id: 0.5})
    _note(worker.id, **{job.job_id: 1.0})
    assert _seen(job.job_id) == 1.0
    with compat.transaction() as session:
        shown = show_worker(session, "edge", silent_after=SILENT).usage
        assert shown is not None and (shown.cpus, shown.memory, shown.disk_free) == (1.5, 2 << 30, 1 << 40)
        (listed,) = list_workers(session, silent_after=SILENT).rows
        assert listed.usage is None and list_jobs(session).rows[0].usage is None


def test_an_old_report_is_not_shown() -> None:
    worker = enlist("edge")
    job = running(worker)
    _note(worker.id, **{job.job_id: 0.5})
    with compat.transaction() as session:
        session.execute(update(models.Usage).values(at=ago(minutes=6)))
    assert _seen(job.job_id) is None
    with compat.transaction() as session:
        assert show_worker(session, "edge", silent_after=SILENT).usage is None


def test_usage_of_foreign_or_ended_jobs_is_ignored() -> None:
    honest, liar = enlist("honest"), enlist("liar")
    job, waiting = running(honest), offered(honest)
    _note(liar.id, **{job.job_id: 99.0})
    assert _seen(job.job_id) is None
    _note(honest.id, **{waiting.job_id: 99.0})
    assert _seen(waiting.job_id) is None


def test_storing_a_report_takes_one_statement_besides_the_clock(database: Engine) -> None:
    worker = enlist("edge")
    _note(worker.id)
    with compat.transaction() as session, record_statements(database) as statements:
        usage.note(session, worker.id, Usage(MACHINE))
    assert len(statements) == 1


def test_usage_is_deleted_with_its_worker() -> None:
    worker, stays = enlist("edge"), enlist("stays")
    _note(worker.id)
    _note(stays.id)
    with compat.transaction() as session:
        session.execute(update(models.Worker).where(models.Worker.id == worker.id).values(removed_at=ago(days=2)))
        retention.purge(session, older_than=timedelta(days=14))
        assert session.scalars(select(models.Usage.worker_id)).all() == [stays.id]
        assert session.scalar(select(func.count()).select_from(models.Worker)) == 1
