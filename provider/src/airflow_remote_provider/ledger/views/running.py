"""The running jobs of workers, as shown in the list of workers: the oldest few of each worker, and their number."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from airflow_remote_protocol.messages import JobKind
from airflow_remote_protocol.states import JobState
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from airflow_remote_provider.ledger.views.scope import Scope
from airflow_remote_provider.models import Job

MOST_SHOWN = 3
"""Per worker: as many as fit into its row. The list of jobs has all of them."""


@dataclass(frozen=True)
class RunningJob:
    """The data needed for a link to the task of a job."""

    id: str
    kind: str
    dag_id: str
    run_id: str
    task_id: str
    map_index: int


@dataclass(frozen=True)
class Running:
    """The running jobs of one worker, within a user's scope."""

    first: list[RunningJob]
    """The oldest."""
    count: int


NOTHING = Running([], 0)


def running_of(session: Session, worker_ids: Collection[str], *, scope: Scope) -> dict[str, Running]:
    """Return the running jobs of these workers, by worker id, without idle workers. One statement for any number of workers."""
    if not worker_ids:
        return {}
    job = (
        select(
            *(Job.worker_id, Job.id, Job.kind, Job.dag_id, Job.run_id, Job.task_id, Job.map_index),
            func.count().over(partition_by=Job.worker_id).label("of_worker"),
            func.row_number().over(partition_by=Job.worker_id, order_by=(Job.accepted_at, Job.id)).label("place"),
        )
        # Triggers only wait, and there may be a thousand of them.
        .where(Job.worker_id.in_(worker_ids), Job.state == JobState.RUNNING.value, Job.kind != JobKind.TRIGGER.value)
        .where(scope.sees_team(Job.team), scope.sees_dag(Job.dag_id))
        .subquery()
    )
    running: dict[str, Running] = {}
    first = select(job).where(job.c.place <= MOST_SHOWN).order_by(job.c.worker_id, job.c.place)
    for row in session.execute(first):
        shown = RunningJob(
            id=row.id,
            kind=row.kind,
            dag_id=row.dag_id,
            run_id=row.run_id,
            task_id=row.task_id,
            map_index=row.map_index,
        )
        running.setdefault(row.worker_id, Running([], row.of_worker)).first.append(shown)
    return running
