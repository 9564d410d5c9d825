"""Measures fleets of idle workers: their cost for the API process, and how soon a real worker gets its tasks beside them.

During the measurement the scheduler and the Dag processor are stopped (SIGSTOP), so that every database statement comes from the
API process. The same measurement without a fleet gives the baseline of that process.
"""

from __future__ import annotations

import json
import re
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from bench.deployment import ROOT, Deployment
from bench.effort import cpu_seconds
from bench.figures import Figure
from bench.fleet_seed import MARK
from bench.workloads import measure_acceptance

TRANSACTION_CONTROL = re.compile(r"\s*(begin|commit|rollback|start transaction)\b", re.IGNORECASE)
BASELINE_S = 20.0
LOOKED_AT = 8
"""The number of the most frequent statements that are stored with the figures."""


@dataclass(frozen=True)
class Window:
    """The resources that the API process used in *seconds*."""

    seconds: float
    cpu_percent: float
    statements: dict[str, int]

    @property
    def statements_per_s(self) -> float:
        """Return the rate of statements without BEGIN, COMMIT and ROLLBACK."""
        return sum(n for query, n in self.statements.items() if not TRANSACTION_CONTROL.match(query)) / self.seconds

    @property
    def commands_per_s(self) -> float:
        """Return the rate of statements including BEGIN, COMMIT and ROLLBACK."""
        return sum(self.statements.values()) / self.seconds

    @property
    def most_frequent(self) -> dict[str, float]:
        ordered = sorted(self.statements.items(), key=lambda item: -item[1])[:LOOKED_AT]
        return {" ".join(query.split())[:160]: round(n / self.seconds, 3) for query, n in ordered}


@dataclass(frozen=True)
class FleetReport:
    """One fleet's window and the counts of its simulator."""

    workers: int
    window: Window
    polls: int
    errors: dict[str, int]
    acceptance: list[float]


def measure_fleets(
    deployment: Deployment, sizes: list[int], window_s: float, say: Callable[[str], None]
) -> tuple[list[Figure], dict[str, object]]:
    """Return the figures of all *sizes*, and details: errors and the most frequent statements."""
    alone = measure_acceptance(deployment)
    with _suspend_others(deployment):
        baseline = _measure_window(deployment, BASELINE_S)
    say(f"no fleet: {_brief(baseline)}")
    figures = [
        *_window_figures("idle_0", "without any simulated worker", baseline),
        Figure.of("idle_0_accepted_p50", "s", "enqueued → accepted, without a fleet, median of 10", {"remote": alone}),
    ]
    details: dict[str, object] = {"idle_0": baseline.most_frequent}
    for size in sizes:
        report = _measure_fleet(deployment, size, window_s)
        say(f"{size} idle workers: {_brief(report.window)}, {report.polls} polls, errors {report.errors or 'none'}")
        figures += _figures(report, baseline)
        details[f"idle_{size}"] = {"errors": report.errors, "statements_per_s": report.window.most_frequent}
    return figures, details


def _measure_fleet(deployment: Deployment, size: int, window_s: float) -> FleetReport:
    with _fleet(deployment, size) as fleet:
        with _suspend_others(deployment):
            time.sleep(2)  # the notifications of the last sessions have been processed
            window = _measure_window(deployment, window_s)
        acceptance = measure_acceptance(deployment)
        result = wait_for_result(fleet)
    return FleetReport(size, window, result["polls"], result["errors"], acceptance)


def _measure_window(deployment: Deployment, seconds: float) -> Window:
    processes = deployment.api_processes()
    deployment.database.forget_statements()
    cpu, begin = cpu_seconds(processes), time.monotonic()
    time.sleep(seconds)
    used, passed = cpu_seconds(processes) - cpu, time.monotonic() - begin
    return Window(passed, 100 * used / passed, deployment.database.statements())


@contextmanager
def _suspend_others(deployment: Deployment) -> Iterator[None]:
    """Suspend central's scheduler and Dag processor; resume them at the end."""
    others = [deployment.central.process(name) for name in ("scheduler", "dag-processor")]
    for process in others:
        process.send(signal.SIGSTOP)
    try:
        yield
    finally:
        for process in others:
            process.send(signal.SIGCONT)


def enrol(deployment: Deployment, prefix: str, size: int, *options: str) -> str:
    """Enrol *size* workers; return their credentials as JSON."""
    seed = [sys.executable, "-m", "bench.fleet_seed", prefix, str(size), *options]
    environment = deployment.central.environment
    done = subprocess.run(seed, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=300)
    made = [line for line in done.stdout.splitlines() if line.startswith(MARK)]
    if not made:
        raise RuntimeError(f"the fleet could not be enrolled:\n{done.stdout[-1000:]}{done.stderr[-2000:]}")
    return made[0].removeprefix(MARK)


@contextmanager
def _fleet(deployment: Deployment, size: int) -> Iterator[subprocess.Popen[str]]:
    """Enrol *size* workers, let them poll, and end them."""
    credentials = enrol(deployment, f"fleet{size}", size)
    with simulator(deployment, "bench.fleet_simulator", credentials) as fleet:
        yield fleet


@contextmanager
def simulator(deployment: Deployment, module: str, credentials: str, *options: str) -> Iterator[subprocess.Popen[str]]:
    """Start a simulator, yield it when it is ready, and end it by closing its input."""
    central = deployment.central
    log = Path(central.home) / f"{module}.out"
    with log.open("ab") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", module, "127.0.0.1", str(central.port), *options],
            cwd=ROOT,
            env=central.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    assert process.stdin is not None
    try:
        process.stdin.write(credentials + "\n")
        process.stdin.flush()
        if read_line(process.stdout) != "ready":
            raise RuntimeError(f"{module} ended at once:\n{log.read_text()[-2000:]}")
        yield process
    finally:
        if not process.stdin.closed:
            process.stdin.close()
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_for_result(process: subprocess.Popen[str]) -> dict[str, Any]:
    """End a simulator; return its result."""
    assert process.stdin is not None
    process.stdin.close()
    result: dict[str, Any] = json.loads(read_line(process.stdout))
    return result


def read_line(stream: IO[str] | None) -> str:
    assert stream is not None
    return stream.readline().strip()


def _figures(report: FleetReport, baseline: Window) -> list[Figure]:
    name, label = f"idle_{report.workers}", f"with {report.workers} idle workers"
    window = report.window
    extra = {
        "extra_cpu_percent": (
            "%",
            "CPU of the API process minus the baseline",
            window.cpu_percent - baseline.cpu_percent,
        ),
        "extra_statements_per_s": (
            "/s",
            "database statements minus the baseline",
            window.statements_per_s - baseline.statements_per_s,
        ),
        "errors": ("", "failed requests and connections of the fleet", float(sum(report.errors.values()))),
        "accepted_p50": (
            "s",
            "enqueued → accepted by a real worker beside them, median of 10",
            statistics.median(report.acceptance),
        ),
    }
    return [
        *_window_figures(name, label, window),
        *(Figure(f"{name}_{key}", unit, f"{label}: {text}", {"remote": value}) for key, (unit, text, value) in extra.items()),
    ]


def _window_figures(name: str, label: str, window: Window) -> list[Figure]:
    values = {
        "cpu_percent": ("%", "CPU of the one API process", window.cpu_percent),
        "statements_per_s": ("/s", "database statements of the API process", window.statements_per_s),
        "commands_per_s": ("/s", "the same with BEGIN, COMMIT and ROLLBACK", window.commands_per_s),
    }
    return [Figure(f"{name}_{key}", unit, f"{label}: {text}", {"remote": value}) for key, (unit, text, value) in values.items()]


def _brief(window: Window) -> str:
    statements = f"{window.statements_per_s:.2f} statements/s ({window.commands_per_s:.2f} with BEGIN and COMMIT)"
    return f"{window.cpu_percent:.1f} % CPU, {statements}"
