"""Measures a chain of ten tasks and fifty parallel tasks, in rounds: every executor in each round, in alternating order."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

from bench.database import TaskTimes
from bench.deployment import Deployment
from bench.effort import measure_effort
from bench.figures import Figure
from bench.peers import OURS, Peer

SETTLE_S = 1.0
"""The wait after a run for its reports and logs. Its CPU counts; its time does not."""

TEXTS = {
    "chain_started_p50": ("s", "chain of 10: queued by the scheduler → started (the task's `run` call), median of its tasks"),
    "chain_code_p50": ("s", "chain of 10: queued by the scheduler → first line of the task's code, median of its tasks"),
    "chain_total": ("s", "chain of 10: first queued → last ended"),
    "fifty_tasks": ("s", "50 mapped tasks that do nothing: first queued → last ended"),
    "fifty_started_p50": ("s", "50 mapped tasks: queued → started, median (includes the wait for a slot)"),
}
SIDES = {
    "api": "the API server",
    "scheduler": "the scheduler",
    "worker": "the processes that run the tasks",
    "shared": "Postgres and the broker",
    "all": "all of these together",
}


@dataclass(frozen=True)
class Run:
    """One Dag run: the times of its tasks, and the CPU seconds of each side."""

    dag_id: str
    run_id: str
    tasks: list[TaskTimes]
    effort: dict[str, float]

    @property
    def total(self) -> float:
        return max(task.ended for task in self.tasks) - min(task.queued for task in self.tasks)

    @property
    def started_p50(self) -> float:
        return statistics.median(task.started - task.queued for task in self.tasks)

    @property
    def code_p50(self) -> float:
        return statistics.median(task.code - task.queued for task in self.tasks if task.code is not None)


def measure_rounds(
    deployment: Deployment, rounds: int, say: Callable[[str], None], *, deadline: float | None = None
) -> list[Figure]:
    """Run *rounds* rounds and return the figures. Only the first round can begin after *deadline* (monotonic)."""
    samples: dict[str, dict[str, list[float]]] = {peer.name: {} for peer in deployment.peers}
    for number in range(rounds):
        if number and deadline is not None and time.monotonic() > deadline:
            say(f"the computer is slow: {number} rounds instead of {rounds}")
            break
        # The order alternates, so that drift (caches, growing tables) affects all executors alike.
        for peer in deployment.peers if number % 2 == 0 else deployment.peers[::-1]:
            row = measure_once(deployment, peer)
            for name, value in row.items():
                samples[peer.name].setdefault(name, []).append(value)
            say(f"round {number + 1}/{rounds} {peer.name:<6} " + ", ".join(f"{name} {row[name]:.3f}" for name in TEXTS))
    return [
        Figure.of(name, unit, text, {peer: rows[name] for peer, rows in samples.items()})
        for name, (unit, text) in (TEXTS | _effort_texts()).items()
    ]


def measure_once(deployment: Deployment, peer: Peer) -> dict[str, float]:
    chain = run_workload(deployment, peer, "chain")
    fifty = run_workload(deployment, peer, "fifty")
    return {
        "chain_started_p50": chain.started_p50,
        "chain_code_p50": chain.code_p50,
        "chain_total": chain.total,
        "fifty_tasks": fifty.total,
        "fifty_started_p50": fifty.started_p50,
        **_effort_columns("chain", chain),
        **_effort_columns("fifty", fifty),
    }


def run_workload(deployment: Deployment, peer: Peer, workload: str) -> Run:
    """Run it once; the REST API is called only to trigger the run.

    Raises:
        RuntimeError: the run did not succeed.
    """
    dag_id = f"{workload}_{peer.name}"
    sides = {
        "api": deployment.api_processes,
        "scheduler": deployment.scheduler_processes,
        "worker": lambda: deployment.worker_processes(peer),
        "shared": deployment.shared_processes,
    }
    with measure_effort(sides) as effort:
        run_id = deployment.central.trigger(dag_id)
        state = deployment.database.wait_for_run(dag_id, run_id, timeout_s=300)
        time.sleep(SETTLE_S)
    if state != "success":
        raise RuntimeError(f"{dag_id} ended as {state}")
    return Run(dag_id, run_id, deployment.database.task_times(dag_id, run_id), effort)


def measure_acceptance(deployment: Deployment) -> list[float]:
    """Return the seconds from enqueueing to acceptance of ten jobs, one after the other."""
    run = run_workload(deployment, OURS, "chain")
    return deployment.database.acceptance_times(run.dag_id, run.run_id)


def warm_up(deployment: Deployment) -> None:
    """Run everything once, all executors at the same time, to fill caches."""
    dag_ids = [f"{workload}_{peer.name}" for workload in ("fifty", "chain") for peer in deployment.peers]
    runs = {dag_id: deployment.central.trigger(dag_id) for dag_id in dag_ids}
    ended = {dag_id: deployment.database.wait_for_run(dag_id, run_id, timeout_s=300) for dag_id, run_id in runs.items()}
    failed = [dag_id for dag_id, state in ended.items() if state != "success"]
    if failed:
        raise RuntimeError(f"failed while warming up: {', '.join(failed)}")
    time.sleep(SETTLE_S)


def _effort_columns(workload: str, run: Run) -> dict[str, float]:
    effort = run.effort | {"all": sum(run.effort.values())}
    return {f"{workload}_cpu_{side}": seconds for side, seconds in effort.items()}


def _effort_texts() -> dict[str, tuple[str, str]]:
    what = {"chain": "chain of 10", "fifty": "50 mapped tasks"}
    return {
        f"{workload}_cpu_{side}": ("CPU s", f"{what[workload]}: CPU time of {text}")
        for workload in what
        for side, text in SIDES.items()
    }
