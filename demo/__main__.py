"""Starts central (SQLite) and a worker, runs the example Dag, prints where each task ran, and stays up until Ctrl-C.

All its files are in .work/demo, which it deletes at its start. With `--once` it ends after the Dag run; its last line is one JSON
object, and it exits with 0 only if every task ended as expected.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import statistics
import sys
import threading
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from testkit.processes import wait_until
from testkit.servers.airflow import RUN_ENDED, Airflow
from testkit.worker import Worker

ROOT = Path(__file__).parent.parent
HOME = ROOT / ".work/demo"
DAG = "remote_demo"
REMOTE = "RemoteExecutor"
WORKER = "demo-worker"
BUILD_WITHIN_S = 900
"""The build may download 30 MB from a package index."""
RUNTIME_WITHIN_S = 300
MUST_FAIL = "take_too_long"


def main() -> int:
    arguments = argparse.ArgumentParser(prog="make demo", description=__doc__)
    arguments.add_argument("--once", action="store_true", help="run the Dag once and exit")
    once = arguments.parse_args().once
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _raise_interrupt)

    shutil.rmtree(HOME, ignore_errors=True)
    central = Airflow(
        HOME / "central",
        database_url=f"sqlite:///{HOME / 'central/remote-demo.sqlite'}",
        dags=ROOT / "demo/dags",
        settings={"AIRFLOW__CORE__PARALLELISM": "4"},
    )
    worker: Worker | None = None
    try:
        say(f"central starts (database {HOME.relative_to(ROOT)}/central/remote-demo.sqlite, port {central.port})")
        central.start()
        say("an administrator creates an enrolment token:  airflow remote enrol create --queues default")
        token = central.enrolment_token(queues="default", name_pattern="demo-*")

        say("an administrator builds what tasks need:       airflow remote runtimes build default")
        say(central.cli("remote", "runtimes", "build", "default", timeout_s=BUILD_WITHIN_S).strip().splitlines()[-1])

        # The worker has no Dag files and no runtime: it fetches both from central.
        worker = Worker(HOME / "worker", name=WORKER, central=central.url, token=token, has_runtime=False)
        say(f"at the site:  airflow-remote-worker join {central.url} --token … --name {WORKER}")
        worker.join()
        say("              airflow-remote-worker run")
        worker.start()
        wait_until(lambda: worker.status()["free_slots"], timeout_s=RUNTIME_WITHIN_S, what="the worker's runtime is ready")
        say("the worker has fetched its runtime, and a test task has run in it")

        run_id = central.trigger(DAG, {"greeting": "Good morning"})
        say(f"Dag {DAG}, run {run_id}")
        state = watch(central, run_id)
        summary, problems = sum_up(central, run_id, state)
        for problem in problems:
            say(f"PROBLEM: {problem}")
        if problems:
            print(central.logs(20), worker.tail(20), sep="\n", flush=True)
        admin = central.users["admin"]
        if not once:
            say(f"UI: {central.url}  (user {admin.name}, password {admin.password}); Ctrl-C ends the demo")
            threading.Event().wait()
        print(json.dumps(summary), flush=True)
        return 1 if problems else 0
    except KeyboardInterrupt:
        say("stopping")
        return 130 if once else 0
    except Exception:  # raised again, after the logs that explain it
        print(central.logs(30), worker.tail(30) if worker else "", sep="\n", file=sys.stderr, flush=True)
        raise
    finally:
        # A second Ctrl-C must not interrupt the stop of the processes.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        if worker is not None:
            worker.stop(timeout_s=10)
        central.stop()


def watch(central: Airflow, run_id: str, *, timeout_s: float = 180) -> str:
    """Print every change of a task's state until the run ends; return the run's state."""
    seen: dict[str, str | None] = {}
    deadline = time.monotonic() + timeout_s
    while True:
        state = central.run_state(DAG, run_id)
        for task in central.task_instances(DAG, run_id):
            name = _name(task)
            if task["state"] not in (None, "scheduled", seen.get(name)):
                seen[name] = task["state"]
                say(f"  {name:<20} {task['state']:<10} {'on a worker' if task['executor'] == REMOTE else 'on central'}")
        if state in RUN_ENDED:
            return state
        if time.monotonic() > deadline:
            return f"{state} after {timeout_s:.0f} s"
        time.sleep(0.5)


def sum_up(central: Airflow, run_id: str, state: str) -> tuple[dict[str, Any], list[str]]:
    """Print where each task ran; return the summary and the problems."""
    tasks = central.task_instances(DAG, run_id)
    remote = [task for task in tasks if task["executor"] == REMOTE]
    workers = _workers_by_task(central, run_id)
    say("where each task ran:")
    for task in sorted(tasks, key=lambda task: task["start_date"] or ""):
        where = workers.get((task["task_id"], task["map_index"]), "?") if task["executor"] == REMOTE else "central"
        say(
            f"  {_name(task):<20} {task['state'] or '-':<10} {where:<14} started {_waited_s(task) or 0:.2f} s after it was queued"
        )

    problems = [] if state == "success" else [f"the Dag run is {state}"]
    for task in tasks:
        wanted = "failed" if task["task_id"] == MUST_FAIL else "success"
        if task["state"] != wanted:
            problems.append(f"{_name(task)} is {task['state']}, not {wanted}")
    wrong = {name for name in (workers.get((t["task_id"], t["map_index"])) for t in remote) if name != WORKER}
    if wrong:
        problems.append(f"remote tasks ran on {wrong}, not on {WORKER}")
    waits = [wait for wait in map(_waited_s, remote) if wait is not None]
    return {
        "dag_run": state,
        "tasks": len(tasks),
        "worker": WORKER,
        "queued_to_running_p50_s": round(statistics.median(waits), 3) if waits else None,
    }, problems


def _workers_by_task(central: Airflow, run_id: str) -> dict[tuple[str, int], str]:
    jobs = central.remote_cli("jobs", "list")
    return {
        (job["task_id"], int(job.get("map_index", -1))): str(job.get("worker") or job.get("worker_name"))
        for job in jobs
        if job.get("run_id") == run_id
    }


def _name(task: dict[str, Any]) -> str:
    return task["task_id"] if task["map_index"] < 0 else f"{task['task_id']}[{task['map_index']}]"


def _waited_s(task: dict[str, Any]) -> float | None:
    if not task["queued_when"] or not task["start_date"]:
        return None
    queued, started = (datetime.fromisoformat(task[key].replace("Z", "+00:00")) for key in ("queued_when", "start_date"))
    return (started - queued).total_seconds()


def _raise_interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def _clock() -> Callable[[], float]:
    begin = time.monotonic()
    return lambda: time.monotonic() - begin


_elapsed = _clock()


def say(text: str) -> None:
    print(f"[{_elapsed():6.1f} s] {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
