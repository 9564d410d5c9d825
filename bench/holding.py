"""Measures memory, requests and kills with sixteen Bash tasks that only sleep."""

from __future__ import annotations

import os
import random
import re
import select
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import quote

import httpx
import psutil

from bench.deployment import Deployment
from bench.effort import pss_mb
from bench.figures import Figure, percentile
from bench.peers import SLOTS, Peer
from testkit.processes import wait_until

GONE_WITHIN_S = 60.0
PHASE_S = 5.0
"""The longest period in which any executor checks for kills: the Task SDK's heartbeat. The tasks of a run start at the same time,
so their heartbeats coincide, and a kill takes effect at one. Without a pause that is spread over a whole period, each kill except
the first would come just after a heartbeat and wait for nearly a whole period: the peers would appear slower than they are."""
ROUTES = {
    "remote": re.compile(rb"path=/remote/v1/(?!jobs/[^/\s]+/log)"),
    "edge": re.compile(rb"path=/(execution|edge_worker/v1/(?!logs/))"),
    "local": re.compile(rb"path=/execution/"),
    "celery": re.compile(rb"path=/execution/"),
}
"""Access log lines that count as requests of each executor. Log shipping, ours and edge3's, is not counted."""


@dataclass(frozen=True)
class Held:
    """The run, and for each map index the processes that a kill must end: the command and the task's process."""

    peer: Peer
    dag_id: str
    run_id: str
    pids: dict[int, tuple[int, int]]


@contextmanager
def hold(deployment: Deployment, peer: Peer) -> Iterator[Held]:
    """Run sixteen tasks, and end them when the block ends."""
    dag_id = f"hold_{peer.name}"
    run_id = deployment.central.trigger(dag_id)
    try:
        found = wait_until(lambda: _all_running(peer), timeout_s=120, what=f"all tasks of {dag_id} run", every_s=0.5)
        assert isinstance(found, dict)
        yield Held(peer, dag_id, run_id, found)
    finally:
        deployment.central.api("PATCH", f"dags/{dag_id}/dagRuns/{quote(run_id)}", json={"state": "failed"})
        wait_until(lambda: not _commands(peer), timeout_s=GONE_WITHIN_S, what=f"the tasks of {dag_id} are gone", every_s=0.5)


def measure_idle_memory(deployment: Deployment) -> dict[str, float]:
    """Return each side's memory before it runs the tasks, in MB (PSS)."""
    return {peer.name: pss_mb(deployment.worker_processes(peer)) for peer in deployment.peers}


def measure_memory_per_task(deployment: Deployment, held: Held, idle_mb: float) -> float:
    """Return the MB (PSS) that each running task adds to the worker's side: supervisor, task, and its `sleep`."""
    return max(0.0, pss_mb(deployment.worker_processes(held.peer)) - idle_mb) / len(held.pids)


def measure_requests(deployment: Deployment, held: Held, window_s: float) -> float:
    """Return the requests per second and running task that the API server answered in *window_s*, without logs."""
    log = deployment.central.process("api-server").log
    begin = log.stat().st_size
    time.sleep(window_s)
    with log.open("rb") as file:
        file.seek(begin)
        requests = sum(1 for line in file if b"[http.access]" in line and ROUTES[held.peer.name].search(line))
    return requests / window_s / len(held.pids)


def measure_kills(deployment: Deployment, held: Held, samples: int) -> list[float]:
    """Mark *samples* tasks failed, one after the other; return the seconds from each request to the end of its processes."""
    client = deployment.central.client()  # logged in, connected
    taken = []
    for number in sorted(held.pids)[:samples]:
        time.sleep(random.uniform(0.0, PHASE_S))
        taken.append(_kill(client, held, number))
    return taken


def kill_figures(samples: dict[str, list[float]]) -> list[Figure]:
    text = "a user marks a running task failed → its processes have ended (Bash task with on_kill)"
    p95 = {peer: percentile(values, 95) for peer, values in samples.items()}
    return [
        Figure.of("kill_p50", "s", f"{text}, median", samples),
        Figure("kill_p95", "s", f"{text}, 95th percentile", p95, samples),
    ]


def _kill(client: httpx.Client, held: Held, number: int) -> float:
    poll = select.poll()
    files = [os.pidfd_open(pid) for pid in held.pids[number]]
    for file in files:
        poll.register(file, select.POLLIN)
    try:
        path = f"/api/v2/dags/{held.dag_id}/dagRuns/{quote(held.run_id)}/taskInstances/hold/{number}"
        begin = time.monotonic()
        client.patch(path, json={"new_state": "failed"}).raise_for_status()
        left = len(files)
        while left:
            ready = poll.poll(GONE_WITHIN_S * 1000)
            if not ready:
                raise TimeoutError(f"{held.dag_id}[{number}] was marked failed {GONE_WITHIN_S:.0f} s ago and still runs")
            for file, _ in ready:
                poll.unregister(file)
                left -= 1
        return time.monotonic() - begin
    finally:
        for file in files:
            os.close(file)


def _all_running(peer: Peer) -> dict[int, tuple[int, int]]:
    found = {number: (process.pid, process.ppid()) for number, process in _commands(peer).items()}
    return found if len(found) == SLOTS else {}


def _commands(peer: Peer) -> dict[int, psutil.Process]:
    """Return the `sleep` process of each task by map index: the Dag gives each a distinct name."""
    prefix = f"hold_{peer.name}_"
    found = {}
    for process in psutil.process_iter(["cmdline"]):
        name = (process.info["cmdline"] or [""])[0]
        if name.startswith(prefix):
            found[int(name.removeprefix(prefix))] = process
    return found
