"""Deletion of old jobs and of removed workers."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import func, select, update

from testkit.ledger import (  # isort: skip
    ago,
    change_job,
    enlist,
    running,
)

from airflow_remote_provider import compat
from airflow_remote_provider.ledger import (
    retention,
    workers,
)
from airflow_remote_provider.models import Job, Worker, WorkerContact

pytestmark = pytest.mark.usefixtures("database")


def _do(verb: object, *args: object, **kwargs: object) -> object:
    with compat.transaction() as session:
        return verb(session, *args, **kwargs)  # type: ignore[operator]


def test_old_jobs_are_deleted_unless_the_scheduler_still_needs_their_end() -> None:
    worker = enlist(slots=9)
    old, young, unsettled, concluded, live = (running(worker) for _ in range(5))
    for lease, ended in ((old, 20), (young, 1), (unsettled, 20), (concluded, 20)):
        change_job(lease.job_id, state="succeeded", ended_at=ago(days=ended), settled_at=ago(days=ended))
    change_job(unsettled.job_id, settled_at=None)
    # The task reported its state itself while no scheduler lived; no scheduler will adopt the job.
    change_job(concluded.job_id, settled_at=None, concluded_at=ago(days=20))
    change_job(live.job_id, queued_at=ago(days=90), accepted_at=ago(days=90))
    assert _do(retention.purge, older_than=timedelta(days=14)) == 2
    with compat.transaction() as session:
        assert set(session.scalars(select(Job.id))) == {young.job_id, unsettled.job_id, live.job_id}


def test_removed_workers_are_deleted_a_day_later() -> None:
    for name in ("stays", "removed-now", "removed-long-ago"):
        enlist(name)
    for name in ("removed-now", "removed-long-ago"):
        _do(workers.remove_worker, name)
    with compat.transaction() as session:
        session.execute(update(Worker).where(Worker.name == "removed-long-ago").values(removed_at=ago(days=2)))
    _do(retention.purge, older_than=timedelta(days=14))
    with compat.transaction() as session:
        assert set(session.scalars(select(Worker.name))) == {"stays", "removed-now"}
        assert session.scalar(select(func.count()).select_from(WorkerContact)) == 2
