"""Runs Airflow's own SchedulerJobRunner in one process, with a Remote Executor whose methods raise errors.

    python -m testkit.scheduler_loop HOME

Prints lines of RESULT and JSON: for each method and kind of error, the outcome for the loop, for a task of another executor and
for a remote task. The database is SQLite, migrated by `airflow db migrate`; loop, Dag and task instances are Airflow's.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from unittest.mock import patch

DAG = """
from airflow.sdk import DAG
from airflow.providers.standard.operators.empty import EmptyOperator

with DAG("both", schedule=None):
    for executor in ("OtherExecutor", "RemoteExecutor"):
        EmptyOperator(task_id=executor, executor=executor, on_success_callback=print)
"""
REMOTE = "airflow_remote_provider.executor.RemoteExecutor"
METHODS = (
    "start",
    "queue_workload",
    "heartbeat",
    "sync",
    "_process_workloads",
    "slots_available",
    "try_adopt_task_instances",
    "revoke_task",
    "fail_connection_test",
    "get_task_log",
    "debug_dump",
    "end",
    "terminate",
)
"""All methods of our class that Airflow calls."""
FOR_EACH_TASK = ("queue_workload", "_process_workloads")
"""For these methods each kind of error has its own Dag run: the outcome of the remote task depends on the kind."""
BY_OTHERS = ("get_task_log", "debug_dump", "terminate")
"""Called by the API server and by signals, not by the loop."""
MOST_TURNS = 6
"""The number of turns in which a Dag run's tasks are queued, submitted and ended."""
LOCK_WAIT_S = 0.5
"""Airflow locks the whole SQLite database while it calls the adoption method; every wait for that lock times out."""
RESULT = "RESULT"
"""The prefix of each result line: Airflow logs to the same stream."""


def kinds() -> dict[str, Callable[[], Exception]]:
    """Return factories of the errors that Airflow's drivers and our code raise."""
    from airflow_remote_provider.settings import BadSetting
    from sqlalchemy.exc import OperationalError, ProgrammingError
    from sqlalchemy.exc import TimeoutError as PoolTimeout

    def of_database(kind: type[Exception], message: str, code: str | None = None) -> Exception:
        driver = Exception(message)
        driver.pgcode = code  # type: ignore[attr-defined]
        return kind("SELECT secret", {}, driver)  # type: ignore[call-arg]

    return {
        "no tables": lambda: of_database(ProgrammingError, 'relation "remote_job" does not exist', "42P01"),
        "another revision": lambda: of_database(ProgrammingError, 'column "labels" does not exist', "42703"),
        "database away": lambda: of_database(OperationalError, "connection refused"),
        "no connection free": lambda: PoolTimeout("QueuePool limit reached"),
        "lock timeout": lambda: of_database(OperationalError, "canceling statement due to lock timeout", "55P03"),
        "bad option": lambda: BadSetting("[remote] lost_after_seconds = 'soon' is not a number; set one from 60 to 604800"),
        "unknown Airflow": lambda: AttributeError("'RemoteExecutor' object has no attribute 'queued_connection_tests'"),
        "a mistake": lambda: KeyError("key"),
    }


def main(home: Path) -> None:
    (home / "dags").mkdir(parents=True)
    (home / "dags" / "both.py").write_text(DAG)
    os.environ |= {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db?timeout={LOCK_WAIT_S}",
        "AIRFLOW__CORE__DAGS_FOLDER": str(home / "dags"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__EXECUTOR": f"OtherExecutor:testkit.scheduler_loop.OtherExecutor,RemoteExecutor:{REMOTE}",
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
        "AIRFLOW__API_AUTH__JWT_SECRET": "a secret of these tests, long enough for HS512 without a warning",
        "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0",
        "AIRFLOW__SCHEDULER__NUM_STUCK_IN_QUEUED_RETRIES": "1000",
        "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT_CHECK_INTERVAL": "0.001",
        "AIRFLOW__CONNECTION_TEST__REAPER_INTERVAL": "0.001",
        "AIRFLOW__LOGGING__LOGGING_LEVEL": "WARNING",
    }
    subprocess.run(
        [sys.executable, "-m", "airflow", "db", "migrate"],
        check=True,
        timeout=300,
        stdout=subprocess.DEVNULL,
        env={**os.environ, "AIRFLOW__CORE__EXECUTOR": "LocalExecutor"},
    )
    for result in Loop().results():
        print(RESULT, json.dumps(result), flush=True)


class Loop:
    """Runs the scheduler's loop a few times; its Dag run has a task for each of two executors."""

    def __init__(self) -> None:
        from airflow.api.common.trigger_dag import trigger_dag
        from airflow.dag_processing.bundles.manager import DagBundlesManager
        from airflow.dag_processing.dagbag import DagBag, sync_bag_to_db
        from airflow.utils.types import DagRunTriggeredByType

        DagBundlesManager().sync_bundles_to_db()
        folder = Path(os.environ["AIRFLOW__CORE__DAGS_FOLDER"])
        bag = DagBag(folder, bundle_path=folder, bundle_name="dags-folder")
        assert set(bag.dags) == {"both"}, bag.import_errors
        sync_bag_to_db(bag, "dags-folder", None)
        self._left = "left-over"
        trigger_dag("both", run_id=self._left, triggered_by=DagRunTriggeredByType.TEST)

    def results(self) -> Iterator[dict[str, Any]]:
        """Let each method raise each kind of error, and yield the outcomes."""
        for method in METHODS:
            if method in FOR_EACH_TASK:
                for kind, error in kinds().items():
                    yield self._run_case([kind], [error()], method)
            else:
                yield self._run_case(list(kinds()), [error() for error in kinds().values()], method)

    def _run_case(self, names: list[str], errors: list[Exception], method: str) -> dict[str, Any]:
        """Return the outcome of one Dag run while *method* raises these errors, one after the other."""
        from airflow.api.common.trigger_dag import trigger_dag
        from airflow.executors.executor_loader import ExecutorLoader
        from airflow.utils.types import DagRunTriggeredByType

        run_id = f"{method}-{uuid.uuid4()}"
        # SQLite's clock has whole seconds: a run due in the current second would count as due in the future.
        due = datetime.now(timezone.utc) - timedelta(minutes=1)
        trigger_dag("both", run_id=run_id, run_after=due, triggered_by=DagRunTriggeredByType.TEST)
        calls: Counter[str] = Counter()
        ended: list[str] = []
        tasks: dict[str, str | None] = {}
        with _record_errors() as lines:
            executors = ExecutorLoader.init_executors()
            remote = executors[1]
            for name, error in zip(names, errors, strict=True):
                for _ in range(MOST_TURNS):
                    self._prepare_rows(run_id, orphan=method == "try_adopt_task_instances")
                    with _let_raise(method, error) as called:
                        turn = []
                        if method not in BY_OTHERS or tasks.get("OtherExecutor") != "success":
                            turn.append(lambda: self._run(executors, impatient=method == "revoke_task"))
                        if method in BY_OTHERS:
                            turn.append(lambda: _call_as_others(remote, method, self._tasks(run_id).get("RemoteExecutor")))
                        ended += [f"{name}: {failure}" for failure in map(_failure, turn) if failure]
                        calls[name] += len(called)
                    tasks = {task_id: ti.state for task_id, ti in self._tasks(run_id).items()}
                    if calls[name] and (name != names[-1] or tasks.get("OtherExecutor") == "success"):
                        break
            if method == "_process_workloads":
                ended += [failure for failure in [_failure(remote.heartbeat)] if failure]
        return {
            "method": method,
            "kinds": names,
            "calls": dict(calls),
            "ended": ended,
            "other": tasks.get("OtherExecutor"),
            "remote": tasks.get("RemoteExecutor"),
            "job": self._job_of(run_id),
            "lines": list(lines),
        }

    def _run(self, executors: list[Any], *, impatient: bool) -> None:
        """Run the loop once. *impatient*: every queued task counts as stuck."""
        from airflow.jobs.job import Job, run_job
        from airflow.jobs.scheduler_job_runner import SchedulerJobRunner

        job = Job()
        runner = SchedulerJobRunner(job=job, num_runs=1, executors=executors)
        if impatient:
            runner._task_queued_timeout = -1
        run_job(job, runner._execute)

    def _prepare_rows(self, run_id: str, *, orphan: bool) -> None:
        """End all other runs; add a connection test that no executor answers.

        If *orphan*, add the task of a scheduler that died. Only then: the scheduler's transaction locks the whole SQLite database
        while it calls the adoption method.
        """
        from airflow import settings
        from airflow.jobs.job import Job
        from airflow.models.connection_test import ConnectionTestRequest
        from airflow.models.dagrun import DagRun
        from airflow.models.taskinstance import TaskInstance
        from sqlalchemy import update

        with settings.Session() as session:
            test = ConnectionTestRequest(connection_id=f"none-{uuid.uuid4()}", conn_type="http")
            test.state = "queued"
            dead = Job()
            dead.job_type, dead.state = "SchedulerJob", "failed"
            session.add_all([test, dead])
            session.flush()
            long_ago = datetime.now(timezone.utc) - timedelta(hours=1)
            session.execute(update(ConnectionTestRequest).values(updated_at=long_ago).where(ConnectionTestRequest.id == test.id))
            session.execute(update(TaskInstance).values(state="success").where(TaskInstance.run_id != run_id))
            session.execute(update(DagRun).values(state="success").where(DagRun.run_id != run_id))
            if not orphan:
                session.commit()
                return
            left = update(TaskInstance).where(TaskInstance.run_id == self._left, TaskInstance.task_id == "RemoteExecutor")
            session.execute(left.values(state="queued", queued_by_job_id=dead.id, external_executor_id=str(uuid.uuid4())))
            session.execute(update(DagRun).where(DagRun.run_id == self._left).values(state="running"))
            session.commit()

    def _tasks(self, run_id: str) -> dict[str, Any]:
        from airflow import settings
        from airflow.models.taskinstance import TaskInstance
        from sqlalchemy import select

        with settings.Session() as session:
            return {ti.task_id: ti for ti in session.scalars(select(TaskInstance).where(TaskInstance.run_id == run_id))}

    def _job_of(self, run_id: str) -> str | None:
        from airflow_remote_provider import compat
        from airflow_remote_provider.models import Job
        from sqlalchemy import select

        with compat.transaction() as session:
            return session.scalar(select(Job.state).where(Job.run_id == run_id))


def _failure(call: Callable[[], object]) -> str | None:
    try:
        call()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


def _call_as_others(executor: Any, method: str, row: Any) -> None:
    call = getattr(executor, method)
    call(row, 1) if method == "get_task_log" else call()


@contextmanager
def _let_raise(method: str, error: Exception) -> Iterator[list[str]]:
    """Let *method* raise *error*; yield the list of its calls."""
    from airflow_remote_provider.executor.ledger_executor import LedgerExecutor

    called: list[str] = []

    def raising(self: Any, *args: Any, **kwargs: Any) -> Any:
        called.append(method)
        raise error

    real = getattr(LedgerExecutor, method)
    with patch.object(LedgerExecutor, method, property(raising) if isinstance(real, property) else raising):
        yield called


@contextmanager
def _record_errors() -> Iterator[list[str]]:
    """Yield a list that collects the errors that our executor logs."""
    from airflow_remote_provider import faults

    messages: list[str] = []
    real = faults.Faults

    class RecordingLog:
        def __init__(self, log: Any) -> None:
            self._log = log

        def error(self, text: str, *values: object, exc_info: object = None) -> None:
            messages.append(text % values)

        def __getattr__(self, name: str) -> Any:
            return getattr(self._log, name)

    def recording_faults(log: Any, part: str) -> Any:
        return real(RecordingLog(log), part)

    with patch("airflow_remote_provider.executor.ledger_executor.Faults", recording_faults):
        yield messages


def _other_executor() -> type:
    from airflow.executors.base_executor import BaseExecutor

    class OtherExecutor(BaseExecutor):
        """Another executor: its tasks succeed at once."""

        supports_callbacks = True
        supports_connection_test = True

        def _process_workloads(self, workload_items: Any) -> None:
            from airflow import settings
            from airflow.models.taskinstance import TaskInstance
            from sqlalchemy import update

            for item in workload_items:
                self.queued_tasks.pop(item.key, None)
                with settings.Session() as session:
                    session.execute(update(TaskInstance).where(TaskInstance.id == item.ti.id).values(state="success"))
                    session.commit()
                self.success(item.key)

        def revoke_task(self, *, ti: Any) -> None:
            """Do nothing: no task waits."""

        def end(self) -> None:
            """Do nothing: no task runs."""

        def terminate(self) -> None:
            """Do nothing: no task runs."""

    return OtherExecutor


if __name__ == "__main__":
    logging.disable(logging.INFO)
    main(Path(sys.argv[1]))
else:
    OtherExecutor = _other_executor()
