"""Checks which tasks a job skips: only those downstream of its own task, in the Dag version from which the job was made.

Airflow's own API skips any tasks of the Dag run that the call names. Its operators name direct downstream tasks (branches) or all
downstream tasks (ShortCircuitOperator), so both are allowed.
"""

from __future__ import annotations

from uuid import UUID

import msgspec
from sqlalchemy.orm import Session

from airflow_remote_provider import compat
from airflow_remote_provider.definitions.grants import Skip
from airflow_remote_provider.ledger.errors import LedgerError, NoSuchJob
from airflow_remote_provider.ledger.presentable import presentable
from airflow_remote_provider.models import Job

LONGEST_SHOWN = 250
"""The longest task id."""


class NotDownstream(LedgerError):
    """A job names a task to skip that is not downstream of its own task."""


def check_skip(session: Session, job_id: str, skip: Skip) -> None:
    """Check that every task that *skip* names is downstream of the job's own task.

    Raises:
        NoSuchJob: the job no longer exists.
        NotDownstream: a task is not downstream, or the Dag version no longer exists; then nothing can be skipped.
    """
    job = session.get(Job, job_id)
    if job is None:
        raise NoSuchJob(job_id)
    version = msgspec.json.decode(job.workload).get("ti", {}).get("dag_version_id")
    task = compat.task_definition(session, UUID(version), job.task_id) if version else None
    if task is None:
        raise NotDownstream("central no longer has the version of the Dag that says which tasks are downstream; clear the task")
    downstream = compat.downstream_of(task)
    for task_id, map_index in sorted(skip.tasks):
        shown = presentable(task_id, longest=LONGEST_SHOWN)
        if task_id not in downstream:
            raise NotDownstream(f"the task {shown!r} is not downstream of {job.task_id!r} in the Dag {job.dag_id!r}")
        if map_index != job.map_index and compat.are_mapped_together(task, task_id):
            raise NotDownstream(
                f"the task {shown!r} of map index {map_index} belongs to another instance of the mapped task group than "
                f"{job.task_id!r} of map index {job.map_index}"
            )
