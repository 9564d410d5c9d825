"""Measures what a worker needs on its computer: installed packages, disk, and memory while idle."""

from __future__ import annotations

import psutil

from bench.deployment import ROOT, Deployment
from bench.effort import pss_mb, rss_mb
from bench.figures import Figure
from bench.peers import LOCAL, OURS, SLOTS


def installed_figures() -> list[Figure]:
    """Measure the worker's environment as `scripts/environments` creates it: wheels with compiled bytecode."""
    (packages,) = (ROOT / ".work/worker/lib").glob("python*/site-packages")
    size_mb = sum(path.stat().st_size for path in packages.rglob("*") if path.is_file()) / 1e6
    count = float(len(list(packages.glob("*.dist-info"))))
    return [
        Figure("worker_packages", "", "packages that a worker needs, including itself", {"remote": count}),
        Figure("worker_mb", "MB", "their files, including compiled bytecode", {"remote": size_mb}),
    ]


def idle_figures(deployment: Deployment) -> list[Figure]:
    """Measure the memory of each side that runs tasks while it is idle. Each side has run tasks before."""
    # LocalExecutor has [core] parallelism processes, twice the slots of the others, so it can't be compared.
    sides = {peer.name: deployment.worker_processes(peer) for peer in deployment.peers if peer is not LOCAL}
    assert deployment.remote is not None
    daemon = [psutil.Process(deployment.remote.pid)]
    all_pss = {name: pss_mb(processes) for name, processes in sides.items()}
    all_rss = {name: rss_mb(processes) for name, processes in sides.items()}
    count = {name: float(len(processes)) for name, processes in sides.items()}
    what = f"idle, {SLOTS} slots: all processes that run tasks"
    return [
        Figure("idle_pss", "MB", f"{what}, PSS", all_pss),
        Figure("idle_rss", "MB", f"{what}, RSS (shared pages counted for each process)", all_rss),
        Figure("idle_processes", "", f"{what}, processes", count),
        Figure("idle_daemon_pss", "MB", "idle: only the worker's daemon, PSS", {OURS.name: pss_mb(daemon)}),
        Figure("idle_daemon_rss", "MB", "idle: only the worker's daemon, RSS", {OURS.name: rss_mb(daemon)}),
    ]
