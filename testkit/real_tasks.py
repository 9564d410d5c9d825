"""Central with Airflow's own tables: a real Dag, its run and its task instances, for calls that Airflow looks up there.

The other suites use a stand-in for Airflow's task instances. Here our tables and Airflow's are in one database, as on central.
"""

from __future__ import annotations

import testkit.ledger  # noqa: F401  isort: skip  (first: it points Airflow elsewhere)

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from airflow_remote_protocol.conformance.caller import Caller
from airflow_remote_protocol.conformance.expect import expect_no_content
from airflow_remote_provider import compat
from airflow_remote_provider.models import Base, Job
from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from testkit.attacker import Attacker
from testkit.central import ServedCentral
from testkit.ledger import queue_job

DAG_ID, RUN_ID, BUNDLE = "real", "run-1", "real-bundle"
TASKS = ("probe", "after", "later", "beside")
"""The attacker runs `probe`; `after` and `later` are downstream of it, `beside` is not."""


@contextmanager
def configure_airflow(url: str, logs: Path) -> Iterator[None]:
    """Make *url* Airflow's database, with Airflow's tables and ours, and *logs* the folder of task logs."""
    from airflow import settings
    from airflow.utils.db import initdb

    def log_file(path: str) -> Path:
        file = logs / path
        file.parent.mkdir(parents=True, exist_ok=True)
        return file

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", url)
        patch.setattr(compat, "base_log_folder", lambda: logs)
        patch.setattr(compat, "log_file", log_file)
        _configure(settings)
        try:
            initdb()
            Base.metadata.create_all(compat.engine())
            yield
        finally:
            patch.undo()
            _configure(settings)


def _configure(settings: Any) -> None:
    settings.dispose_orm(do_log=False)
    settings.configure_vars()
    settings.configure_orm()
    compat.dag_bag.cache_clear()


def make_run() -> None:
    """Write the Dag and one run of it, whose task instances have no state, as the scheduler does."""
    from airflow.models.dagbundle import DagBundleModel
    from airflow.models.serialized_dag import SerializedDagModel
    from airflow.providers.standard.operators.empty import EmptyOperator
    from airflow.sdk import DAG, Asset, AssetAlias
    from airflow.serialization.definitions.dag import SerializedDAG
    from airflow.serialization.serialized_objects import LazyDeserializedDAG
    from airflow.utils.session import create_session
    from airflow.utils.state import DagRunState
    from airflow.utils.types import DagRunTriggeredByType, DagRunType

    with DAG(DAG_ID, schedule=None) as dag:
        outlets = [Asset("out", "s3://out"), AssetAlias("alias")]
        probe, after, later = (
            EmptyOperator(task_id="probe", outlets=outlets),
            EmptyOperator(task_id="after"),
            EmptyOperator(task_id="later"),
        )
        probe >> after >> later
        EmptyOperator(task_id="beside")
    with create_session() as session:
        session.merge(DagBundleModel(name=BUNDLE))
        session.flush()
        lazy = LazyDeserializedDAG.from_dag(dag)
        SerializedDAG.bulk_write_to_db(BUNDLE, None, [lazy], session=session)
        SerializedDagModel.write_dag(lazy, BUNDLE, session=session)
        session.flush()
        now = datetime.now(timezone.utc)
        compat.dag_bag().get_latest_version_of_dag(DAG_ID, session=session).create_dagrun(
            run_id=RUN_ID,
            logical_date=now,
            data_interval=(now, now),
            run_after=now,
            run_type=DagRunType.MANUAL,
            triggered_by=DagRunTriggeredByType.TEST,
            state=DagRunState.RUNNING,
            session=session,
        )


def task_instance(task_id: str) -> Any:
    """Return the row of Airflow's task instance, as it is now."""
    from airflow.models.taskinstance import TaskInstance

    with compat.transaction() as session:
        ti = select(TaskInstance.id, TaskInstance.state, TaskInstance.dag_version_id)
        return session.execute(ti.where(TaskInstance.run_id == RUN_ID, TaskInstance.task_id == task_id)).one()


def take_over_probe(central: ServedCentral) -> Attacker:
    """Take over a worker that runs the task `probe`; its task instance is running."""
    worker = Caller.connect(central)
    ti = task_instance("probe")
    workload = {"ti": {"id": str(ti.id), "dag_version_id": str(ti.dag_version_id)}, "dag_rel_path": "dag.py"}
    with compat.transaction() as session:
        session.execute(delete(Job).where(Job.ti_id == ti.id))
        job = queue_job(
            session,
            worker.queue,
            with_task=False,
            ti_id=ti.id,
            dag_id=DAG_ID,
            run_id=RUN_ID,
            task_id="probe",
            workload=json.dumps({**workload, "bundle": {"name": BUNDLE, "version": None}}),
        )
    reset_task_instances(job.job_id)
    offer = worker.await_offer()
    expect_no_content(worker.accept(offer))
    return Attacker(central, worker, offer)


def reset_task_instances(job_id: str) -> None:
    """Reset the task instances: `probe` runs for this job, the others wait; clear the job's stop, which the changes caused.

    Airflow gives a task instance a new id for its next try: it gets its old id back.
    """
    from airflow.models.taskinstance import TaskInstance

    waiting = {"state": None, "next_method": None, "next_kwargs": None, "trigger_id": None, "trigger_timeout": None}
    with compat.transaction() as session:
        ti_id = session.execute(select(Job.ti_id).where(Job.id == job_id)).scalar_one()
        of_run = update(TaskInstance).where(TaskInstance.run_id == RUN_ID).execution_options(synchronize_session=False)
        probe = {"id": ti_id, "state": "running", "external_executor_id": job_id, "last_heartbeat_at": datetime.now(timezone.utc)}
        _forget_earlier_tries(session)
        session.execute(of_run.values({**waiting, "try_number": 1, "max_tries": 3}))
        session.execute(of_run.where(TaskInstance.task_id == "probe").values(probe))
        session.execute(update(Job).where(Job.id == job_id).values(stop_reason=None, concluded_at=None))


def _forget_earlier_tries(session: Session) -> None:
    try:
        from airflow.models.taskinstancehistory import TaskInstanceHistory
    except ImportError:  # Airflow 3.4 keeps them in the same table as the current ones
        from airflow.models.taskinstance import TaskInstance

        rows = TaskInstance.__table__
        session.execute(delete(rows).where(rows.c.run_id == RUN_ID, rows.c.working_set.is_(None)))
    else:
        session.execute(delete(TaskInstanceHistory))
