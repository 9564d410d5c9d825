"""Airflow's own tables: task instances, Dag runs, callbacks, connection tests, schedulers."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from airflow_remote_provider.compat.clocks import database_now


def task_instance_model() -> Any:
    """Return Airflow's TaskInstance ORM class."""
    from airflow.models.taskinstance import TaskInstance

    return TaskInstance


def dag_run_model() -> Any:
    """Return Airflow's DagRun ORM class."""
    from airflow.models.dagrun import DagRun

    return DagRun


def callback_model() -> Any:
    """Return Airflow's Callback ORM class."""
    from airflow.models.callback import Callback

    return Callback


def connection_test_model() -> Any:
    """Return Airflow's ConnectionTestRequest ORM class."""
    from airflow.models.connection_test import ConnectionTestRequest

    return ConnectionTestRequest


ENDED_CALLBACK = frozenset({"success", "failed"})


ENDED_CONNECTION_TEST = frozenset({"success", "failed"})
"""Final states."""


def living_schedulers(session: Session, job_ids: list[int]) -> set[int]:
    """Return those of the scheduler jobs with a heartbeat within `[scheduler] scheduler_health_check_threshold`."""
    from airflow.configuration import conf
    from airflow.jobs.job import Job

    oldest = database_now(session) - timedelta(seconds=conf.getfloat("scheduler", "scheduler_health_check_threshold"))
    return set(session.scalars(select(Job.id).where(Job.id.in_(job_ids), Job.state == "running", Job.latest_heartbeat > oldest)))


def fail_connection_test(session: Session, connection_test_id: str, reason: str) -> None:
    """Fail a connection test with *reason*, which the user sees, unless it has a result."""
    # Through the ORM: Airflow's model frees the connection for the next test when the state is set.
    test = session.get(connection_test_model(), UUID(connection_test_id), with_for_update=True)
    if test is not None and test.state not in ENDED_CONNECTION_TEST:
        test.state = "failed"
        test.result_message = reason[:2000]


def is_triggered_by(session: Session, *, run: tuple[str, str], source: tuple[str, str]) -> bool:
    """Return whether an asset event of the Dag run *source* triggered the Dag run *run*; each is a Dag id and a run id."""
    from airflow.models.asset import AssetEvent
    from airflow.models.dagrun import DagRun

    query = (
        select(AssetEvent.id)
        .join(AssetEvent.created_dagruns)
        .where(DagRun.dag_id == run[0], DagRun.run_id == run[1])
        .where(AssetEvent.source_dag_id == source[0], AssetEvent.source_run_id == source[1])
    )
    return session.scalar(query.limit(1)) is not None


@dataclass(frozen=True)
class ParsedSource:
    """The source of a Dag file as Airflow parsed it last."""

    digest: str
    """MD5 of its text in UTF-8."""
    updated_at: datetime


def parsed_sources(session: Session, dag_version_ids: Collection[UUID]) -> dict[UUID, ParsedSource]:
    """Return the source of each of these Dag versions. Airflow rewrites it in place when only bodies of functions change."""
    from airflow.models.dagcode import DagCode

    if not dag_version_ids:
        return {}
    query = select(DagCode.dag_version_id, DagCode.source_code_hash, DagCode.last_updated)
    rows = session.execute(query.where(DagCode.dag_version_id.in_(dag_version_ids)))
    return {row.dag_version_id: ParsedSource(row.source_code_hash, row.last_updated) for row in rows}
