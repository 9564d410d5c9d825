"""Routes of jobs of the Dags that the caller may read."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Annotated

from airflow_remote_protocol.messages import JobKind
from airflow_remote_protocol.states import JobState
from fastapi import Depends, Path, Query
from pydantic import BaseModel
from sqlalchemy.orm import Session

from airflow_remote_provider.api.ui_v1.caller import CallerDep
from airflow_remote_provider.api.ui_v1.listed import Listed, PageDep
from airflow_remote_provider.api.ui_v1.request_types import Reason, RequestBody
from airflow_remote_provider.api.ui_v1.routes import Routes
from airflow_remote_provider.ledger import jobs
from airflow_remote_provider.ledger.views import jobs as view
from airflow_remote_provider.ledger.views import waiting
from airflow_remote_provider.ledger.views.jobs import JobFilter, JobRow
from airflow_remote_provider.settings import silent_after

router = Routes("jobs")

LONGEST_AGE = timedelta(days=3650)
"""No history is kept longer; a much longer age has no date in any database."""

Id = Annotated[str, Query(max_length=1000)]


def _filter(
    state: Annotated[Sequence[JobState], Query()] = (),
    queue: Annotated[str, Query(max_length=256)] = "",
    worker: Annotated[str, Query(max_length=100, description="name of the worker that has the job, or had it last")] = "",
    dag_id: Id = "",
    run_id: Id = "",
    task_id: Id = "",
    map_index: Annotated[int | None, Query(ge=-1, le=2**31 - 1, description="-1 for tasks that are not mapped")] = None,
    kind: Annotated[JobKind | None, Query()] = None,
    text: Annotated[str, Query(max_length=200, description="part of the Dag's, run's or task's id, ignoring case")] = "",
    queued_before: Annotated[datetime | None, Query(description="filter by the time of queueing: before this")] = None,
    older_than_s: Annotated[
        float | None,
        Query(ge=0, le=LONGEST_AGE.total_seconds(), description="filter by the time since queueing, in seconds"),
    ] = None,
) -> JobFilter:
    return JobFilter(
        state=[one.value for one in state],
        queue=queue,
        worker=worker,
        dag_id=dag_id,
        run_id=run_id,
        task_id=task_id,
        map_index=map_index,
        kind="" if kind is None else kind.value,
        text=text,
        queued_before=queued_before,
        older_than=None if older_than_s is None else timedelta(seconds=older_than_s),
    )


@router.get("/jobs", summary="List the jobs")
async def list_jobs(caller: CallerDep, only: Annotated[JobFilter, Depends(_filter)], page: PageDep) -> Listed[JobRow]:
    """Newest first (`-queued_at`, the default) or oldest first (`queued_at`)."""
    return Listed.of(await caller.read(view.list_jobs, only=only, page=page))


@router.get("/jobs/{job_id}", summary="Show a job")
async def show_job(caller: CallerDep, job_id: Annotated[str, Path(max_length=36)]) -> JobRow:
    return await caller.read(view.show_job, job_id)


class StopRequest(RequestBody):
    reason: Reason = ""
    """Shown to users, and in the task's log."""


@router.post("/jobs/{job_id}/stop", status_code=202, summary="Stop a job")
async def stop(caller: CallerDep, job_id: Annotated[str, Path(max_length=36)], body: StopRequest) -> JobRow:
    """Its task fails, and is retried if it has retries left. Requires the permission to edit its Dag's task instances."""

    def stopped(session: Session, job_id: str, *, by: str, reason: str) -> JobRow:
        jobs.stop(session, job_id, by=by, reason=reason)
        session.flush()
        return view.show_job(session, job_id)

    return await caller.act_on_job(stopped, job_id, reason=body.reason)


class Why(BaseModel):
    why: str
    """One sentence."""


@router.get("/jobs/{job_id}/waiting", summary="Show why a job waits")
async def why_waiting(caller: CallerDep, job_id: Annotated[str, Path(max_length=36)]) -> Why:
    """For a job that no longer waits, its state instead."""
    return Why(why=await caller.read(waiting.why_waiting, job_id, silent_after=silent_after()))
