"""The part of :mod:`bench.travel` about runtimes: what the environment of tasks costs on the wire, and until the first task runs.

The earlier patch of Airflow is built by the same command, with another version in place of central's own.
"""

from __future__ import annotations

import subprocess
import sys
import time
from typing import TYPE_CHECKING

from testkit.processes import wait_until

if TYPE_CHECKING:
    from bench.travel import Bench

EARLIER = {"apache-airflow-core": "3.3.1", "apache-airflow-task-sdk": "1.3.1"}
BUILD = f"""
import sys

from airflow.__main__ import main
from airflow_remote_provider.packing.runtimes import requirements

own = requirements.version
requirements.version = lambda name: {EARLIER}.get(name) or own(name)
sys.argv = ["airflow", "remote", "runtimes", "build", "default"]
main()
"""
LINES = (100, 10, 1)
"""Mbit/s of the lines on which a worker starts without anything."""
DELAY_S = 0.02
"""In each direction."""


def measure(bench: Bench) -> dict[str, float]:
    """Build two patches of the default runtime, and let workers without a runtime and without Dag files fetch them."""
    central = bench.central
    figures: dict[str, float] = {}
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", BUILD], env=central.environment, cwd=central.home, check=True, stdout=sys.stderr)
    figures["runtime_build_s"] = time.monotonic() - began

    before = bench.traffic()[1]
    began = time.monotonic()
    bench.add_worker("bare", queue="bare", has_runtime=False)
    wait_until(lambda: _has_ready(bench, "bare", 1), timeout_s=300, what="the runtime is ready")
    figures["runtime_ready_s"] = time.monotonic() - began
    figures["runtime_cold_mb"] = (bench.traffic()[1] - before) / 1e6

    central.cli("remote", "runtimes", "build", "default", timeout_s=600)
    before = bench.traffic()[1]
    central.cli("remote", "runtimes", "roll", "default")
    wait_until(lambda: _has_ready(bench, "bare", 2), timeout_s=300, what="the patched runtime is ready")
    figures["runtime_patch_mb"] = (bench.traffic()[1] - before) / 1e6

    for mbit_s in LINES:
        queue = f"bare_{mbit_s}"
        worker = bench.add_worker(queue, queue=queue, has_runtime=False, starts=False)
        bench.proxy.slow(latency_s=DELAY_S, bytes_per_s=mbit_s * 125_000)
        began = time.monotonic()
        worker.start()
        bench.start_s(queue, timeout_s=600)
        figures[f"empty_machine_to_first_task_s_at_{mbit_s}_mbit_s"] = time.monotonic() - began
        bench.proxy.heal()
    return figures


def _has_ready(bench: Bench, worker: str, serial: int) -> bool:
    rows = bench.central.client().get("/remote/ui/v1/runtimes/default").json()["workers"]
    return any((row["worker"], row["serial"], row["phase"]) == (worker, serial, "ready") for row in rows)
