"""Jobs as users see them, newest first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from airflow_remote_protocol.states import JobState
from sqlalchemy import ColumnElement, or_, select
from sqlalchemy.orm import Session

from airflow_remote_provider.compat import database_now
from airflow_remote_provider.definitions.needs import pairs_of
from airflow_remote_provider.ledger import usage
from airflow_remote_provider.ledger.jobs import no_such_job
from airflow_remote_provider.ledger.trees import RUNTIME
from airflow_remote_provider.ledger.views.page import FIRST, Order, Page, Slice
from airflow_remote_provider.ledger.views.scope import EVERYTHING, Scope
from airflow_remote_provider.models import Edition, Job, Worker


@dataclass(frozen=True)
class JobUsage:
    """The resources that the processes of a running job use."""

    cpus: float
    """Busy processors, on average over the last seconds."""
    memory: int
    """Bytes, with the job's share of memory that is shared with other processes."""


@dataclass(frozen=True)
class JobRuntime:
    """A runtime from central."""

    tree: str
    """Its digest."""
    name: str
    """Empty: its edition is not kept any more."""
    serial: int
    """The newest one with this tree when the job was offered; 0: its edition is not kept any more."""


@dataclass(frozen=True)
class JobRow:
    """One job as the API and the CLI show it."""

    id: str
    kind: str
    state: str
    queue: str
    team: str | None
    dag_id: str
    run_id: str
    task_id: str
    map_index: int
    try_number: int
    worker: str | None
    """Name of the worker to which the job was offered last."""
    epoch: int
    offers: int
    """Offers that were not declined, including the present or the accepted one."""
    slots: int
    labels: dict[str, str]
    """Labels that its worker must have."""
    bundle: str | None
    priority: int
    lost_after_s: float
    queued_at: datetime
    not_before: datetime | None
    """When it can be offered again; None: at once."""
    offered_at: datetime | None
    accepted_at: datetime | None
    ended_at: datetime | None
    outcome: str | None
    exit_code: int | None
    reason: str
    log_size: int | None
    site_code: str | None = None
    """MD5 of the Dag file on its worker, if it differs from the file that central parsed."""
    bundle_version: str | None = None
    """The version of its bundle that it must run; None: the bundle has none."""
    tree: str | None = None
    """Digest of the tree that it runs; None: not offered yet, or its worker has the code."""
    runtime: JobRuntime | None = None
    """The runtime from central that it runs in; None: not offered yet, or its worker's site has the runtime."""
    release: str = ""
    """The version of the worker's software that its last offer went to; empty: not offered yet, or not recorded."""
    code_waits: bool = False
    """Whether it waits for code to be published."""
    code_patience_at: datetime | None = None
    """When it no longer waits for code; None: only that code will do, or it does not wait."""
    detail: str = ""
    """What its worker does before it starts (`code 43 %`)."""
    usage: JobUsage | None = None
    """Its present usage as its worker reports it. Only set by :func:`show_job`."""


@dataclass(frozen=True)
class JobFilter:
    """Selects jobs that match all fields; an empty field selects all."""

    state: Sequence[str] = ()
    queue: str = ""
    worker: str = ""
    dag_id: str = ""
    run_id: str = ""
    task_id: str = ""
    map_index: int | None = None
    """-1: not mapped."""
    kind: str = ""
    text: str = ""
    """Part of the id of the Dag, the run or the task."""
    queued_before: datetime | None = None
    """Selects jobs queued before this time."""
    older_than: timedelta | None = None
    """Selects jobs queued longer ago than this."""


def list_jobs(session: Session, *, only: JobFilter = JobFilter(), page: Page = FIRST, scope: Scope = EVERYTHING) -> Slice[JobRow]:
    """Return a page of jobs. One statement, and one more each for filters by worker and by age, and for runtimes from central.

    Raises:
        BadPage: the list has no such order, or the cursor does not belong to it.
    """
    query = select(Job).where(scope.sees_team(Job.team), scope.sees_dag(Job.dag_id), *_wanted(only))
    if only.worker:
        # The id has an index; of a removed worker only the name is left.
        worker_id = session.scalar(select(Worker.id).where(Worker.name == only.worker))
        query = query.where(Job.worker_name == only.worker if worker_id is None else Job.worker_id == worker_id)
    if only.older_than is not None:
        query = query.where(Job.queued_at < database_now(session) - only.older_than)
    columns = Job.__table__.c
    order = Order({"queued_at": columns.queued_at}, unique=columns.id, nature="-queued_at")
    found = order.read(session, query, page)
    jobs = [row.Job for row in found.rows]
    runtimes = _runtimes(session, jobs)
    return Slice([_row(job, runtimes.get(job.id)) for job in jobs], found.next)


def show_job(session: Session, job_id: str, *, scope: Scope = EVERYTHING) -> JobRow:
    """Return one job.

    Raises:
        NotFound: there is no such job within *scope*.
    """
    job = session.scalar(select(Job).where(Job.id == job_id, scope.sees_team(Job.team), scope.sees_dag(Job.dag_id)))
    if job is None:
        raise no_such_job(job_id)
    return replace(_row(job, _runtimes(session, [job]).get(job.id)), usage=_usage(session, job))


def _runtimes(session: Session, jobs: Sequence[Job]) -> dict[str, JobRuntime]:
    """Return the runtimes from central of *jobs*, by the job's id."""
    trees = {job.runtime for job in jobs if job.runtime is not None}
    if not trees:
        return {}
    editions = session.execute(
        select(Edition.tree, Edition.name, Edition.version, Edition.published_at)
        .where(Edition.kind == RUNTIME, Edition.tree.in_(trees))
        .order_by(Edition.published_at, Edition.id)
    ).all()
    found: dict[str, JobRuntime] = {}
    for job in jobs:
        if job.runtime is not None:
            found[job.id] = JobRuntime(job.runtime, "", 0)
        for edition in editions:
            # A rollback publishes the tree of an earlier serial again.
            if edition.tree == job.runtime and (job.offered_at is None or edition.published_at <= job.offered_at):
                found[job.id] = JobRuntime(edition.tree, edition.name, int(edition.version))
    return found


def _usage(session: Session, job: Job) -> JobUsage | None:
    if job.state != JobState.RUNNING.value or job.worker_id is None:
        return None
    reported = usage.fresh(session, [job.worker_id]).get(job.worker_id)
    used = reported.jobs.get(job.id) if reported else None
    return JobUsage(used.cpus, used.memory) if used else None


def _wanted(only: JobFilter) -> list[ColumnElement[bool]]:
    equal = {
        Job.queue: only.queue,
        Job.dag_id: only.dag_id,
        Job.run_id: only.run_id,
        Job.task_id: only.task_id,
        Job.kind: only.kind,
    }
    conditions: list[ColumnElement[bool]] = [column == value for column, value in equal.items() if value]
    if only.map_index is not None:
        conditions.append(Job.map_index == only.map_index)
    if only.state:
        conditions.append(Job.state.in_(only.state))
    if only.text:
        conditions.append(
            or_(*(column.icontains(only.text, autoescape=True) for column in (Job.dag_id, Job.run_id, Job.task_id)))
        )
    if only.queued_before is not None:
        conditions.append(Job.queued_at < only.queued_before)
    return conditions


def _row(job: Job, runtime: JobRuntime | None) -> JobRow:
    return JobRow(
        id=job.id,
        kind=job.kind,
        state=job.state,
        queue=job.queue,
        team=job.team,
        dag_id=job.dag_id,
        run_id=job.run_id,
        task_id=job.task_id,
        map_index=job.map_index,
        try_number=job.try_number,
        worker=job.worker_name,
        epoch=job.epoch,
        offers=job.offers,
        slots=job.slots,
        labels=dict(pairs_of(job.labels)) if job.labels else {},
        bundle=job.bundle,
        priority=job.priority,
        lost_after_s=job.lost_after_s,
        queued_at=job.queued_at,
        not_before=job.not_before,
        offered_at=job.offered_at,
        accepted_at=job.accepted_at,
        ended_at=job.ended_at,
        outcome=job.outcome,
        exit_code=job.exit_code,
        reason=job.reason,
        log_size=job.log_size,
        site_code=job.site_code,
        bundle_version=job.bundle_version,
        tree=job.tree,
        runtime=runtime,
        release=job.release,
        code_waits=job.code_waits and job.state == JobState.QUEUED.value,
        code_patience_at=job.code_patience_at,
        detail=job.detail if job.state == JobState.OFFERED.value else "",
    )
