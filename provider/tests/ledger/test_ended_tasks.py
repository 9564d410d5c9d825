"""Jobs whose task was ended, cleared or deleted by a user or the scheduler."""

from __future__ import annotations

import uuid

import pytest
from sqlalchemy import Engine, delete, update

from testkit.ledger import (  # isort: skip
    TaskInstance,
    change_task,
    record_statements,
    enlist,
    job_row,
    offered,
    queued,
    running,
)

from airflow_remote_protocol.messages import Outcome, Report
from airflow_remote_provider import compat
from airflow_remote_provider.ledger import (
    ended_tasks,
    jobs,
    leases,
)

pytestmark = pytest.mark.usefixtures("database")


def _do(verb: object, *args: object, **kwargs: object) -> object:
    with compat.transaction() as session:
        return verb(session, *args, **kwargs)  # type: ignore[operator]


WHY = {
    "success": "ended",
    "failed": "ended",
    "skipped": "ended",
    "up_for_retry": "ended",
    "up_for_reschedule": "ended",
    "upstream_failed": "ended",
    "deferred": "ended",
    None: "cleared",
    "restarting": "cleared",
    "scheduled": "cleared",
    "removed": "cleared",
}


@pytest.mark.parametrize(("state", "why"), WHY.items(), ids=map(str, WHY))
def test_a_running_job_is_stopped_with_the_reason_when_its_task_ends(state: str | None, why: str) -> None:
    lease = running(enlist())
    assert _do(ended_tasks.stop_ended) == 0
    change_task(job_row(lease.job_id).ti_id, state=state)
    assert _do(ended_tasks.stop_ended) == 1
    row = job_row(lease.job_id)
    assert (row.state, row.stop_reason) == ("running", why)
    assert _do(ended_tasks.stop_ended) == 0, "only once"


@pytest.mark.parametrize("state", ["queued", "running"])
def test_a_job_whose_task_is_active_is_not_stopped(state: str) -> None:
    worker = enlist()
    waiting, run = queued("elsewhere"), running(worker)
    for ti_id in (waiting.ti_id, job_row(run.job_id).ti_id):
        change_task(ti_id, state=state)
    assert _do(ended_tasks.stop_ended) == 0


def test_a_job_whose_task_was_deleted_is_stopped_as_gone() -> None:
    lease = running(enlist())
    with compat.transaction() as session:
        session.execute(delete(TaskInstance))
    assert _do(ended_tasks.stop_ended) == 1
    assert job_row(lease.job_id).stop_reason == "gone"


def test_a_job_whose_task_belongs_to_another_attempt_is_stopped_as_gone() -> None:
    lease = running(enlist())
    change_task(job_row(lease.job_id).ti_id, external_executor_id=str(uuid.uuid4()))
    assert _do(ended_tasks.stop_ended) == 1
    assert job_row(lease.job_id).stop_reason == "gone"


def test_a_task_without_an_executor_id_keeps_its_job() -> None:
    lease = running(enlist())
    change_task(job_row(lease.job_id).ti_id, external_executor_id=None)
    assert _do(ended_tasks.stop_ended) == 0


@pytest.mark.parametrize("state", ["success", "failed", "deferred", "up_for_retry", None])
def test_a_job_whose_own_end_went_through_is_never_stopped(state: str | None) -> None:
    lease = running(enlist())
    _do(leases.conclude, lease, done=True)
    change_task(job_row(lease.job_id).ti_id, state=state, external_executor_id="next")
    assert _do(ended_tasks.stop_ended) == 0
    assert job_row(lease.job_id).stop_reason is None


def test_a_job_that_never_ran_is_revoked_at_once() -> None:
    offer = offered(enlist())
    waiting = queued("elsewhere")
    with compat.transaction() as session:
        session.execute(update(TaskInstance).values(state="failed"))
    assert _do(ended_tasks.stop_ended) == 2
    for job_id in (offer.job_id, waiting.job_id):
        row = job_row(job_id)
        assert (row.state, row.stop_reason) == ("revoked", "ended") and row.ended_at is not None


def test_an_ended_job_is_not_changed() -> None:
    lease = running(enlist())
    _do(leases.report, lease, Report(Outcome.DIED))
    change_task(job_row(lease.job_id).ti_id, state="success")
    assert _do(ended_tasks.stop_ended) == 0


def test_a_stopping_job_keeps_its_first_reason() -> None:
    lease = running(enlist())
    _do(jobs.revoke, lease.job_id)
    change_task(job_row(lease.job_id).ti_id, state="failed")
    assert _do(ended_tasks.stop_ended) == 0
    assert job_row(lease.job_id).stop_reason == "revoked"


def test_finding_no_ended_tasks_takes_one_statement(database: Engine) -> None:
    worker = enlist(slots=20)
    for _ in range(10):
        running(worker)
    with record_statements(database) as statements:
        _do(ended_tasks.stop_ended)
    assert len(statements) == 1
