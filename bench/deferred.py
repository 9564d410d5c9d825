"""Measures how soon a deferred task continues after its event: at a site, compared with central's triggerer and LocalExecutor.

    make bench ONLY=deferred

Starts a Postgres, one Airflow with all its processes and one worker. The same task waits for a file under both executors; the
files are created one at a time, in random order. The last line is one JSON object: `{moment: {"remote": s, "local": s, "ratio":
…}}`, medians of the time since the file was created. Takes about two minutes.
"""

from __future__ import annotations

import json
import random
import shutil
import statistics
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from bench.figures import percentile
from testkit.processes import wait_until
from testkit.servers.airflow import Airflow
from testkit.servers.postgres import PostgresServer
from testkit.worker import Worker

ROOT = Path(__file__).parent.parent
HOME = ROOT / ".work/bench-run/deferred"
DAGS = ROOT / "bench/dags_deferred"
EXECUTORS = ("remote", "local")
WAITS = 16
"""The number of tasks that wait under each executor."""
MOMENTS = {"scheduled": "scheduled_dttm", "queued": "queued_dttm", "ended": "end_date"}
"""The measured moments → their columns of Airflow's task instance."""


@dataclass(frozen=True)
class Wait:
    """One deferred task."""

    executor: str
    run_id: str
    path: Path


def main() -> int:
    shutil.rmtree(HOME, ignore_errors=True)
    with ExitStack() as stack:
        postgres = stack.enter_context(PostgresServer())
        print("starting central and a worker", flush=True)
        central = _start_central(stack, postgres)
        waits = _defer(central)
        print(f"{len(waits)} tasks wait", flush=True)
        appeared = {wait: _create_file(wait) for wait in random.Random(1).sample(waits, len(waits))}
        for wait in waits:
            assert central.wait_for_run(f"waits_{wait.executor}", wait.run_id) == "success"
        taken = {name: _taken(central, column, appeared) for name, column in MOMENTS.items()}
    return _report(taken)


def _start_central(stack: ExitStack, postgres: PostgresServer) -> Airflow:
    central = Airflow(HOME / "central", database_url=postgres.create_database("bench_deferred"), dags=DAGS)
    stack.callback(central.stop)
    central.start(triggerer=True)
    worker = Worker(
        HOME / "worker",
        name="site",
        central=central.url,
        token=central.enrolment_token(),
        slots=16,
        bundles={"dags-folder": DAGS},
    )
    stack.callback(worker.stop)
    worker.start()
    return central


def _defer(central: Airflow) -> list[Wait]:
    """Start the runs; return them when all their triggers run."""
    waits = []
    for number in range(WAITS):
        for executor in EXECUTORS:
            path = HOME / f"{executor}-{number}"
            waits.append(Wait(executor, central.trigger(f"waits_{executor}", {"path": str(path)}), path))
    for wait in waits:
        central.wait_for_task(f"waits_{wait.executor}", wait.run_id, "wait", "deferred", timeout_s=120)
    wait_until(
        lambda: (
            central.query("SELECT count(*) AS n FROM remote_job WHERE kind = 'trigger' AND state = 'running'")[0]["n"] == WAITS
        ),
        timeout_s=60,
        what="the worker hosts all triggers",
    )
    time.sleep(3)  # central's triggerer looks for new triggers every second
    return waits


def _create_file(wait: Wait) -> datetime:
    """Create the file at a moment that is not aligned with any loop of Airflow; return the time."""
    time.sleep(random.uniform(1.0, 2.5))
    now = datetime.now(timezone.utc)
    wait.path.touch()
    return now


def _taken(central: Airflow, column: str, appeared: dict[Wait, datetime]) -> dict[str, list[float]]:
    """Return the seconds from the creation of each file to this moment of its task, by executor."""
    taken: dict[str, list[float]] = {executor: [] for executor in EXECUTORS}
    for wait, begun in appeared.items():
        [row] = central.query(
            f"SELECT {column} AS moment FROM task_instance WHERE dag_id = :dag AND run_id = :run",
            dag=f"waits_{wait.executor}",
            run=wait.run_id,
        )
        taken[wait.executor].append((row["moment"] - begun).total_seconds())
    return taken


def _report(taken: dict[str, dict[str, list[float]]]) -> int:
    medians = {}
    for name, by_executor in taken.items():
        remote, local = (statistics.median(by_executor[executor]) for executor in EXECUTORS)
        medians[name] = {"remote": round(remote, 3), "local": round(local, 3), "ratio": round(remote / local, 2)}
        p95 = ", ".join(f"{executor} {percentile(by_executor[executor], 95):.2f} s" for executor in EXECUTORS)
        print(f"{name:<10} remote {remote:.2f} s, local {local:.2f} s, ratio {remote / local:.2f}; p95: {p95}")
    print(json.dumps(medians))
    return 0


if __name__ == "__main__":
    sys.exit(main())
