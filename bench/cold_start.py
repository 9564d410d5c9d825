"""A whole fleet that calls in one moment, as after a power cut, while a task that runs already reads through the gateway."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

from bench.deployment import Deployment
from bench.figures import Figure, percentile
from bench.fleet import ended, enrol, simulator

QUIET_S = 5.0
"""How long the task reads alone before, to compare with."""
AFTER_S = 2.0


def measure_cold_start(deployment: Deployment, size: int, say: Callable[[str], None]) -> tuple[list[Figure], dict[str, object]]:
    """Return the figures of *size* workers that come at once, and details: the errors, what the busy were told."""
    probed = enrol(deployment, "probe", 1, "--with-job")
    credentials = enrol(deployment, f"cold{size}", size)
    with simulator(deployment, "bench.gateway_probe", probed) as probe:
        quiet_from = time.monotonic()
        time.sleep(QUIET_S)
        came = time.monotonic()
        with simulator(deployment, "bench.fleet_simulator", credentials, "--at-once") as fleet:
            back = time.monotonic()
            time.sleep(AFTER_S)
            told = ended(fleet)
        saw = ended(probe)
    alone = [seconds for at, seconds in saw["calls"] if quiet_from <= at < came]
    amid = [seconds for at, seconds in saw["calls"] if came <= at < back]
    busy = told["busy"]
    figures = [
        Figure("all_back", "s", f"{size} workers call at once: until each has a session and a poll", _ours(told["all_back_s"])),
        Figure("sent_away", "", "sent away as busy, with a time to come again", _ours(len(busy))),
        Figure("longest_retry_after", "s", "the longest time they were told", _ours(max(busy, default=0.0))),
        Figure("errors", "", "failed requests and connections of the fleet, busy aside", _ours(sum(told["errors"].values()))),
        Figure("read_p50_alone", "s", "a running task's read through the gateway before, median", _ours(percentile(alone, 50))),
        Figure("read_p99_alone", "s", "the same, 99 % are faster", _ours(percentile(alone, 99))),
        Figure("read_p50", "s", "the same while the fleet comes back, median", _ours(percentile(amid, 50))),
        Figure("read_p99", "s", "the same while the fleet comes back, 99 % are faster", _ours(percentile(amid, 99))),
        Figure("read_max", "s", "the same while the fleet comes back, the slowest", _ours(max(amid))),
        Figure("read_errors", "", "reads that were not answered by the Execution API", _ours(len(saw["errors"]))),
    ]
    say(", ".join(f"{figure.name} {figure.values['remote']:.3g}{figure.unit}" for figure in figures))
    details: dict[str, object] = {"errors": told["errors"], "read_errors": saw["errors"][:20], "retry_after_s": _counted(busy)}
    say(json.dumps(details))
    return [Figure(f"cold_{figure.name}", figure.unit, figure.text, figure.values) for figure in figures], details


def _ours(value: float) -> dict[str, float]:
    return {"remote": float(value)}


def _counted(values: list[float]) -> dict[str, int]:
    return {f"{value:g}": values.count(value) for value in sorted(set(values))}
