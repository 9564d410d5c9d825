"""Measures a fleet that connects at one moment, as after a power cut, while a running task reads through the gateway."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

from bench.deployment import Deployment
from bench.figures import Figure, percentile
from bench.fleet import enrol, simulator, wait_for_result

QUIET_S = 5.0
"""How long the task reads alone before, as the baseline."""
AFTER_S = 2.0


def measure_cold_start(deployment: Deployment, size: int, say: Callable[[str], None]) -> tuple[list[Figure], dict[str, object]]:
    """Return the figures of *size* workers that connect at once, and details: the errors and the Retry-After times."""
    probed = enrol(deployment, "probe", 1, "--with-job")
    credentials = enrol(deployment, f"cold{size}", size)
    with simulator(deployment, "bench.gateway_probe", probed) as probe:
        quiet_from = time.monotonic()
        time.sleep(QUIET_S)
        came = time.monotonic()
        with simulator(deployment, "bench.fleet_simulator", credentials, "--at-once") as fleet:
            back = time.monotonic()
            time.sleep(AFTER_S)
            fleet_result = wait_for_result(fleet)
        probe_result = wait_for_result(probe)
    alone = [seconds for at, seconds in probe_result["calls"] if quiet_from <= at < came]
    during = [seconds for at, seconds in probe_result["calls"] if came <= at < back]
    busy = fleet_result["busy"]
    figures = [
        Figure(
            "all_back", "s", f"{size} workers at once: until each has a session and a poll", _ours(fleet_result["all_back_s"])
        ),
        Figure("sent_away", "", "requests refused as busy, with a Retry-After", _ours(len(busy))),
        Figure("longest_retry_after", "s", "the longest Retry-After", _ours(max(busy, default=0.0))),
        Figure("errors", "", "other failed requests and connections of the fleet", _ours(sum(fleet_result["errors"].values()))),
        Figure("read_p50_alone", "s", "a running task's read through the gateway before, median", _ours(percentile(alone, 50))),
        Figure("read_p99_alone", "s", "the same, 99th percentile", _ours(percentile(alone, 99))),
        Figure("read_p50", "s", "the same while the fleet connects, median", _ours(percentile(during, 50))),
        Figure("read_p99", "s", "the same while the fleet connects, 99th percentile", _ours(percentile(during, 99))),
        Figure("read_max", "s", "the same while the fleet connects, maximum", _ours(max(during))),
        Figure("read_errors", "", "reads that the Execution API did not answer", _ours(len(probe_result["errors"]))),
    ]
    say(", ".join(f"{figure.name} {figure.values['remote']:.3g}{figure.unit}" for figure in figures))
    details: dict[str, object] = {
        "errors": fleet_result["errors"],
        "read_errors": probe_result["errors"][:20],
        "retry_after_s": _count(busy),
    }
    say(json.dumps(details))
    return [Figure(f"cold_{figure.name}", figure.unit, figure.text, figure.values) for figure in figures], details


def _ours(value: float) -> dict[str, float]:
    return {"remote": float(value)}


def _count(values: list[float]) -> dict[str, int]:
    return {f"{value:g}": values.count(value) for value in sorted(set(values))}
