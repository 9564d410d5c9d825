"""Which tasks a job may skip: those downstream of its own, by the Dag version that the job was made from.

Airflow's own API skips whatever tasks of the Dag run the call names. Its operators name direct downstream tasks (branches) or all
of them (ShortCircuitOperator), so both are allowed.
"""

from __future__ import annotations

from uuid import UUID

import msgspec
from sqlalchemy.orm import Session

from airflow_remote_provider import compat
from airflow_remote_provider.definitions.grants import Skip
from airflow_remote_provider.ledger.errors import LedgerError, NotYours
from airflow_remote_provider.ledger.presentable import presentable
from airflow_remote_provider.models import Job

LONGEST_SHOWN = 250
"""As long as a task id may be."""


class NotDownstream(LedgerError):
    """A job names a task to skip that is not downstream of its own task."""


def check_skip(session: Session, job_id: str, skip: Skip) -> None:
    """Return if every task that *skip* names is downstream of the job's own task.

    Raises:
        NotYours: there is no such job any more.
        NotDownstream: one is not, or the Dag version is gone; nothing may be skipped then.
    """
    job = session.get(Job, job_id)
    if job is None:
        raise NotYours(job_id)
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
