"""Measures both executors in the same Airflow on the same Postgres, in alternating rounds, after a warm-up of each.

Prints medians and ratios, writes everything to .work/bench/<time>.json. Only ratios from one run mean anything, and nothing here
ever passes or fails.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import sys
import time
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import psutil

from testkit.airflow import Airflow
from testkit.postgres import PostgresServer
from testkit.worker import Worker

ROOT = Path(__file__).parent.parent
HOME = ROOT / ".work/bench"
SLOTS = 16
EXECUTORS = ("local", "remote")

COLUMNS = {
    "chain_queued_to_started_p50_s": "chain of 10: queued by the scheduler → task's `run` call, median of the tasks",
    "chain_queued_to_code_p50_s": "chain of 10: queued by the scheduler → first line of the task's code, median",
    "chain_total_s": "chain of 10: first queued → last ended",
    "fan_total_s": "50 mapped tasks, 16 slots: first queued → last ended",
    "fan_queued_to_started_p50_s": "50 mapped tasks: queued → `run` call, median (waiting for a slot included)",
}


def main() -> int:
    arguments = argparse.ArgumentParser(prog="make bench", description=__doc__)
    arguments.add_argument("--rounds", type=int, default=5)
    rounds = arguments.parse_args().rounds
    shutil.rmtree(HOME / "central", ignore_errors=True)
    shutil.rmtree(HOME / "worker", ignore_errors=True)
    with PostgresServer() as postgres:
        central = Airflow(
            HOME / "central",
            database_url=postgres.create_database("airflow_bench"),
            dags=ROOT / "bench/dags",
            settings={"AIRFLOW__CORE__PARALLELISM": str(SLOTS)},
        )
        worker: Worker | None = None
        try:
            say("starting central and a worker")
            central.start()
            token = central.enrolment_token()
            bundles = {"dags-folder": ROOT / "bench/dags"}
            worker = Worker(HOME / "worker", name="bench", central=central.url, token=token, slots=SLOTS, bundles=bundles)
            worker.start()
            say("warming up")
            for name in EXECUTORS:
                measure(central, name)
            results: dict[str, list[dict[str, float]]] = {name: [] for name in EXECUTORS}
            for number in range(rounds):
                # Who goes first alternates: what drifts (caches, tables that grow) hits both alike.
                for name in EXECUTORS if number % 2 == 0 else EXECUTORS[::-1]:
                    results[name].append(measure(central, name))
                    say(f"round {number + 1}/{rounds} {name}: {_brief(results[name][-1])}")
            idle = memory(worker)
        except BaseException:
            print(central.logs(20), worker.tail(20) if worker else "", sep="\n", file=sys.stderr)
            raise
        finally:
            if worker is not None:
                worker.stop()
            central.stop()
    return report(results, idle)


def measure(central: Airflow, name: str) -> dict[str, float]:
    """Run the chain, then the fan, and return what they took."""
    chain = _run(central, f"chain_{name}")
    code = [central.xcom(f"chain_{name}", task["dag_run_id"], task["task_id"]) - _seconds(task["queued_when"]) for task in chain]
    fan = _run(central, f"fan_{name}")
    return {
        "chain_queued_to_started_p50_s": statistics.median(_waits(chain)),
        "chain_queued_to_code_p50_s": statistics.median(code),
        "chain_total_s": _total(chain),
        "fan_total_s": _total(fan),
        "fan_queued_to_started_p50_s": statistics.median(_waits(fan)),
    }


def memory(worker: Worker) -> dict[str, float]:
    """Return the idle worker's memory in MB (proportional set size: shared pages are counted once)."""
    processes = [psutil.Process(pid) for pid in {worker.pid, *worker.stray_pids()}]
    sizes = {process.pid: process.memory_full_info().pss / 1e6 for process in processes}
    return {"daemon_pss_mb": round(sizes[worker.pid], 1), "all_pss_mb": round(sum(sizes.values()), 1), "processes": len(sizes)}


def report(results: dict[str, list[dict[str, float]]], idle: dict[str, float]) -> int:
    print(f"\n{'':<32} {'local':>10} {'remote':>10} {'remote/local':>13}")
    medians: dict[str, dict[str, float]] = {name: {} for name in EXECUTORS}
    for column in COLUMNS:
        for name in EXECUTORS:
            medians[name][column] = statistics.median(row[column] for row in results[name])
        local, remote = medians["local"][column], medians["remote"][column]
        print(f"{column:<32} {local:>10.3f} {remote:>10.3f} {remote / local if local else float('nan'):>13.2f}")
    for column, text in COLUMNS.items():
        print(f"  {column}: {text}")
    print(f"  idle worker with {SLOTS} slots: {idle}")
    now = datetime.now(timezone.utc)
    target = HOME / f"{now:%Y%m%dT%H%M%SZ}.json"
    machine = {
        "cpus": os.cpu_count(),
        "load": os.getloadavg(),
        "python": platform.python_version(),
        "system": platform.platform(),
    }
    content = {"at": now.isoformat(), "machine": machine, "rounds": results, "medians": medians, "idle_worker": idle}
    target.write_text(json.dumps(content, indent=2) + "\n")
    print(f"  written to {target.relative_to(ROOT)}; load while measuring {machine['load'][1]:.1f} on {machine['cpus']} cores")
    return 0


def _run(central: Airflow, dag_id: str) -> list[dict[str, Any]]:
    run_id = central.trigger(dag_id)
    state = central.wait_for_run(dag_id, run_id, timeout_s=180)
    if state != "success":
        raise RuntimeError(f"{dag_id} ended as {state}")
    time.sleep(1)
    return central.task_instances(dag_id, run_id)


def _waits(tasks: Sequence[dict[str, Any]]) -> list[float]:
    return [_seconds(task["start_date"]) - _seconds(task["queued_when"]) for task in tasks]


def _total(tasks: Sequence[dict[str, Any]]) -> float:
    return max(_seconds(task["end_date"]) for task in tasks) - min(_seconds(task["queued_when"]) for task in tasks)


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def _brief(row: dict[str, float]) -> str:
    return ", ".join(f"{key.removesuffix('_s')} {value:.3f} s" for key, value in row.items())


def say(text: str) -> None:
    print(f"[{time.strftime('%H:%M:%S')}] {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
