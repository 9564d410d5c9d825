"""Measures the database queries of each view of the dashboard, on Postgres, with a large fleet and a long history.

    .work/central/bin/python -m bench.lists

Runs in one process, without HTTP. Also measures the history's recorder: an ordinary minute, and one that writes all workers.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
import uuid
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

from testkit.ledger import ago, use_ledger, make_engine  # isort: skip  (first: it points Airflow elsewhere)

from airflow_remote_provider import compat
from airflow_remote_provider.api.duties import recorder
from airflow_remote_provider.api.duties.recorder import Recorder
from airflow_remote_provider.ledger.history import QUARTERS, SeriesKind
from airflow_remote_provider.ledger.views.history import list_history
from airflow_remote_provider.ledger.views.jobs import JobFilter, list_jobs
from airflow_remote_provider.ledger.views.page import Page
from airflow_remote_provider.ledger.views.pulse import take_pulse
from airflow_remote_provider.ledger.views.queues import list_queues
from airflow_remote_provider.ledger.views.summary import summarize
from airflow_remote_provider.ledger.views.workers import WorkerFilter, count_workers, list_workers
from airflow_remote_provider.models import Job, Worker, WorkerContact
from sqlalchemy import Engine, insert, text

from testkit.servers.postgres import PostgresServer

SILENT = timedelta(seconds=90)
QUEUES = 50
ROUNDS = 40
BATCH = 1000


def main() -> int:
    arguments = argparse.ArgumentParser(prog="bench.lists", description=__doc__)
    arguments.add_argument("--workers", type=int, default=5_000)
    arguments.add_argument("--jobs", type=int, default=100_000)
    options = arguments.parse_args()
    with PostgresServer() as postgres, tempfile.TemporaryDirectory() as logs:
        engine = make_engine(postgres.create_database("lists"))
        with use_ledger(engine, Path(logs)):
            _fill(engine, options.workers, options.jobs)
            found = {name: _measure(view) for name, view in _views().items()} | _measure_recorder()
    print(json.dumps(found, indent=2))
    return 0


def _views() -> dict[str, Callable[..., Any]]:
    workers = partial(list_workers, silent_after=SILENT)
    return {
        "workers by name": partial(workers, page=Page(100, "", "name")),
        "workers by last contact": partial(workers, page=Page(100, "", "-last_seen_at")),
        "workers by slots used": partial(workers, page=Page(100, "", "-used_slots")),
        "workers by text": partial(workers, only=WorkerFilter(text="9"), page=Page(100, "", "name")),
        "fleet counted": partial(count_workers, silent_after=SILENT),
        "jobs, the newest": partial(list_jobs, page=Page(100, "", "")),
        "jobs of a queue that run": partial(list_jobs, only=JobFilter(queue="q7", state=["running"]), page=Page(100, "", "")),
        "queues": partial(list_queues, silent_after=SILENT),
        "summary": partial(summarize, silent_after=SILENT),
        "whether anything has changed": take_pulse,
        "history of all queues": partial(list_history, kind=SeriesKind.QUEUE, last=timedelta(days=1), most_points=96),
    }


def _measure(view: Callable[..., Any]) -> dict[str, float]:
    """Return the durations of the view in milliseconds."""
    took = []
    for _ in range(ROUNDS):
        begin = time.perf_counter()
        with compat.transaction() as session:
            view(session)
        took.append((time.perf_counter() - begin) * 1000)
    return {"p50_ms": round(statistics.median(took), 1), "p95_ms": round(sorted(took)[int(0.95 * len(took))], 1)}


def _measure_recorder() -> dict[str, dict[str, float]]:
    """Record three minutes, the last of which begins a new quarter."""
    now, by, took = ago(), Recorder(silent_after=SILENT), {}
    real = recorder.database_now
    for name, later in (("history, first minute", 0), ("history, a minute", 60), ("history, a quarter", QUARTERS.span_s)):
        recorder.database_now = lambda session, later=later: now + timedelta(seconds=later)  # type: ignore[misc]
        begin = time.perf_counter()
        with compat.transaction() as session:
            by.record(session)
        took[name] = {"ms": round((time.perf_counter() - begin) * 1000, 1)}
    recorder.database_now = real
    return took


def _fill(engine: Engine, workers: int, jobs: int) -> None:
    ids = [str(uuid.uuid4()) for _ in range(workers)]
    now = ago()
    fleet = [
        {
            "id": one,
            "name": f"edge-{number:05}",
            "credential_hash": f"{number:064}",
            "queues": [f"q{number % QUEUES}", "all"],
            "slots": 8,
            "facts": {"hostname": f"host-{number}", "version": "1.0"},
            "created_at": now,
            "changed_at": now,
        }
        for number, one in enumerate(ids)
    ]
    seen = [{"worker_id": one, "last_seen_at": ago(seconds=number % 120)} for number, one in enumerate(ids)]
    with engine.begin() as connection:
        for model, rows in ((Worker, fleet), (WorkerContact, seen), (Job, [_job(number, ids) for number in range(jobs)])):
            for first in range(0, len(rows), BATCH):
                connection.execute(insert(model), rows[first : first + BATCH])
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE"))


def _job(number: int, workers: list[str]) -> dict[str, Any]:
    """Return the row of a job. Most jobs have ended, over two weeks; of the newest 3,000 a tenth runs and a tenth waits."""
    age = timedelta(seconds=number * 12)
    state = {0: "queued", 1: "running"}.get(number % 10, "succeeded") if number < 3000 else "succeeded"
    queued_at = ago() - age
    begun = None if state == "queued" else queued_at + timedelta(seconds=number % 30)
    return {
        "id": str(uuid.uuid4()),
        "kind": "task",
        "state": state,
        "epoch": 1,
        "queue": f"q{number % QUEUES}",
        "priority": 1,
        "slots": 1,
        "owner": "",
        "ti_id": uuid.uuid4(),
        "dag_id": f"dag_{number % 200}",
        "run_id": f"run_{number // 200}",
        "task_id": "task",
        "map_index": -1,
        "try_number": 1,
        "workload": "{}",
        "log_path": "x.log",
        "worker_id": None if begun is None else workers[number % len(workers)],
        "worker_name": None if begun is None else f"edge-{number % len(workers):05}",
        "lost_after_s": 3600.0,
        "reason": "",
        "offers": 0,
        "queued_at": queued_at,
        "accepted_at": begun,
        "ended_at": begun + timedelta(seconds=60) if state == "succeeded" and begun is not None else None,
    }


if __name__ == "__main__":
    raise SystemExit(main())
