"""What workers say that they use: kept, shown while it is fresh, to who may see it, and forgotten with them."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import Engine, func, select, update

from testkit.ledger import ago, counted, enlist, offered, running  # isort: skip

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
        told = show_job(session, job_id).usage
        return told.cpus if told else None


def test_the_newest_is_shown_of_the_worker_and_of_its_job() -> None:
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


def test_what_is_old_says_nothing_of_now() -> None:
    worker = enlist("edge")
    job = running(worker)
    _note(worker.id, **{job.job_id: 0.5})
    with compat.transaction() as session:
        session.execute(update(models.Usage).values(at=ago(minutes=6)))
    assert _seen(job.job_id) is None
    with compat.transaction() as session:
        assert show_worker(session, "edge", silent_after=SILENT).usage is None


def test_a_worker_says_nothing_of_anothers_job_nor_of_one_that_does_not_run() -> None:
    honest, liar = enlist("honest"), enlist("liar")
    job, waiting = running(honest), offered(honest)
    _note(liar.id, **{job.job_id: 99.0})
    assert _seen(job.job_id) is None
    _note(honest.id, **{waiting.job_id: 99.0})
    assert _seen(waiting.job_id) is None


def test_noting_is_one_statement_and_a_clock(database: Engine) -> None:
    worker = enlist("edge")
    _note(worker.id)
    with compat.transaction() as session, counted(database) as statements:
        usage.note(session, worker.id, Usage(MACHINE))
    assert len(statements) == 1


def test_it_goes_with_the_worker() -> None:
    worker, stays = enlist("edge"), enlist("stays")
    _note(worker.id)
    _note(stays.id)
    with compat.transaction() as session:
        session.execute(update(models.Worker).where(models.Worker.id == worker.id).values(removed_at=ago(days=2)))
        retention.purge(session, older_than=timedelta(days=14))
        assert session.scalars(select(models.Usage.worker_id)).all() == [stays.id]
        assert session.scalar(select(func.count()).select_from(models.Worker)) == 1
