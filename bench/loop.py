"""Measures the executor's heartbeat in the scheduler's loop, compared with an executor that does nothing.

    .work/central/bin/python -m bench.loop

Runs in one process on its own Postgres: idle, while a backlog is submitted, while the backlog waits, with a long history, while
another session holds a lock on our rows, and while the database is unavailable.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import tempfile
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from testkit.ledger import TaskInstance, use_ledger, make_engine, new_job  # isort: skip  (first: it points Airflow elsewhere)

from airflow.executors.base_executor import BaseExecutor
from airflow.executors.workloads import ExecuteTask
from airflow.executors.workloads.base import BundleInfo
from airflow.executors.workloads.task import TaskInstanceDTO
from airflow_remote_provider import compat
from airflow_remote_provider.executor import RemoteExecutor
from airflow_remote_provider.models import Job
from sqlalchemy import create_engine, insert, select

from testkit.servers.postgres import PostgresServer


class NullExecutor(BaseExecutor):
    """Accepts all tasks and does nothing: the lower bound of a heartbeat's cost."""

    def _process_workloads(self, workload_items: Sequence[Any]) -> None:
        for item in workload_items:
            self.queued_tasks.pop(item.key, None)
            self.running.add(item.key)


def main() -> int:
    arguments = argparse.ArgumentParser(prog="bench.loop", description=__doc__)
    arguments.add_argument("--backlog", type=int, default=20_000)
    arguments.add_argument("--history", type=int, default=100_000)
    options = arguments.parse_args()
    logging.disable(logging.CRITICAL)
    found: dict[str, dict[str, float]] = {}
    with PostgresServer() as postgres, tempfile.TemporaryDirectory() as logs:
        engine = make_engine(postgres.create_database("loop"))
        with use_ledger(engine, Path(logs)):
            remote, null = _executor(RemoteExecutor, options.backlog), _executor(NullExecutor, options.backlog)
            found["idle"] = _compare(remote, null, beats=50)
            work = [_workload(number) for number in range(options.backlog)]
            for executor in (remote, null):
                executor.queued_tasks = {item.ti.key: item for item in work}
            with compat.transaction() as session:
                session.execute(insert(TaskInstance), [{"id": item.ti.id, "state": "queued"} for item in work])
            beats = _times(remote.heartbeat, until=lambda: not remote.queued_tasks)
            found["submitting the backlog"] = _summary(beats, _times(null.heartbeat, until=lambda: not null.queued_tasks))
            found["backlog waiting"] = _compare(remote, null, beats=50)
            _end_some(options.history)
            found["backlog and history"] = _compare(remote, null, beats=50)
            with engine.connect() as other, other.begin():
                other.execute(select(Job.id).where(Job.state == "queued").with_for_update())
                found["rows locked by another"] = _compare(remote, null, beats=3)
        away = create_engine("postgresql+psycopg2://nobody@127.0.0.1:1/nothing")
        with use_ledger(away, Path(logs)):
            found["database unavailable"] = _compare(remote, null, beats=5)
        engine.dispose()
    print(f"{'heartbeat, ms':<28}{'remote p50':>12}{'remote max':>12}{'null p50':>12}{'null max':>12}")
    for what, row in found.items():
        print(f"{what:<28}" + "".join(f"{row[column]:>12.2f}" for column in ("p50", "max", "null_p50", "null_max")))
    print(json.dumps(found))
    return 0


def _executor(kind: type[BaseExecutor], parallelism: int) -> BaseExecutor:
    executor = kind(parallelism=parallelism + 1)
    executor.job_id = 1
    return executor


def _workload(number: int) -> ExecuteTask:
    ti = TaskInstanceDTO(
        id=uuid.uuid4(),
        dag_version_id=uuid.uuid4(),
        dag_id="dag",
        run_id="run",
        task_id=f"task-{number}",
        try_number=1,
        map_index=-1,
        queue="q",
        pool_slots=1,
        priority_weight=number % 10,
        external_executor_id=str(uuid.uuid4()),
    )
    return ExecuteTask(
        ti=ti, token="", dag_rel_path="dag.py", bundle_info=BundleInfo(name="dags"), log_path=f"task-{number}/attempt=1.log"
    )


def _end_some(count: int) -> None:
    """Insert ended jobs that this executor has already settled."""
    now = {"state": "succeeded", "epoch": 1, "offers": 1, "reason": ""}
    with compat.transaction() as session:
        at = compat.database_now(session)
        for _ in range(0, count, 10_000):
            rows = []
            for _ in range(10_000):
                row = {name: value for name, value in vars(new_job(owner="")).items() if name != "job_id"}
                rows.append(
                    {**row, **now, "id": str(uuid.uuid4()), "kind": "task", "queued_at": at, "ended_at": at, "settled_at": at}
                )
            session.execute(insert(Job), rows)


def _compare(remote: BaseExecutor, null: BaseExecutor, *, beats: int) -> dict[str, float]:
    return _summary(_times(remote.heartbeat, beats=beats), _times(null.heartbeat, beats=beats))


def _times(beat: Callable[[], None], *, beats: int = 10_000, until: Callable[[], bool] = lambda: False) -> list[float]:
    times: list[float] = []
    while len(times) < beats and not until():
        begin = time.perf_counter()
        beat()
        times.append((time.perf_counter() - begin) * 1000)
    return times


def _summary(remote: list[float], null: list[float]) -> dict[str, float]:
    return {
        "p50": statistics.median(remote),
        "max": max(remote),
        "null_p50": statistics.median(null),
        "null_max": max(null),
        "beats": len(remote),
    }


if __name__ == "__main__":
    raise SystemExit(main())
