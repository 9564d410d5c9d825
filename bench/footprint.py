"""Measures what a worker needs on its computer: installed packages, disk, and memory while idle.

Run alone, it installs the worker, a full Airflow and edge3 into fresh environments, and prints packages and MB as one JSON line:

    .work/bench/bin/python -m bench.footprint
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import psutil

from bench.deployment import ROOT, Deployment
from bench.effort import pss_mb, rss_mb
from bench.figures import Figure
from bench.peers import LOCAL, OURS, SLOTS

PIN = re.compile(r"^([a-z0-9-]+)==([^\s;]+)( ; [^\\\n]+)?", re.MULTILINE)
"""A line of a lock: package, version, and for which Python."""
UV = ROOT / ".work/uv/bin/uv"


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


def measure_installations() -> dict[str, dict[str, float]]:
    """Install each side into a fresh environment, at the versions of the locks; return packages and MB by side.

    Airflow and edge3 are installed as their documentation says: `apache-airflow` and the provider, with their dependencies.
    """
    lock = ROOT / "requirements/bench.lock"
    pins = {package: version for package, version, _ in PIN.findall(lock.read_text(encoding="utf-8"))}
    # The same Airflow for both peers, and what its lock has; packages beyond the lock are the newest.
    airflow = f"apache-airflow=={pins['apache-airflow-core']}"
    edge = f"apache-airflow-providers-edge3=={pins['apache-airflow-providers-edge3']}"
    found = {}
    with tempfile.TemporaryDirectory(prefix="footprint-") as name:
        work = Path(name)
        constraints = _without_hashes(lock, work)
        wheels = [str(path) for path in sorted((ROOT / ".work/wheels").glob("*.whl"))]
        worker = ["--constraints", str(_without_hashes(ROOT / "requirements/worker.lock", work)), *wheels]
        found["remote"] = _measure(work / "remote", worker)
        found["airflow"] = _measure(work / "airflow", ["--constraints", str(constraints), airflow])
        found["edge3"] = _measure(work / "edge3", ["--constraints", str(constraints), airflow, edge])
    return found


def _without_hashes(lock: Path, work: Path) -> Path:
    pins = PIN.findall(lock.read_text(encoding="utf-8"))
    path = work / lock.name
    path.write_text("".join(f"{package}=={version}{marker}\n" for package, version, marker in pins))
    return path


def _measure(venv: Path, words: Sequence[str]) -> dict[str, float]:
    """Install *words* into a new environment; return its packages and the MB of their files without bytecode."""
    environ = {**os.environ, "UV_PYTHON_DOWNLOADS": "never", "UV_NO_CONFIG": "1", "UV_NO_PROGRESS": "1"}
    environ.pop("VIRTUAL_ENV", None)
    subprocess.run([UV, "--quiet", "venv", "--python", sys.executable, venv], env=environ, check=True)
    subprocess.run([UV, "--quiet", "pip", "install", "--python", venv / "bin/python", *words], env=environ, check=True)
    (packages,) = (venv / "lib").glob("python*/site-packages")
    sizes = [path.stat().st_size for path in packages.rglob("*") if path.is_file() and path.suffix != ".pyc"]
    return {"packages": len(list(packages.glob("*.dist-info"))), "mb": round(sum(sizes) / 1e6, 1)}


if __name__ == "__main__":
    print(json.dumps(measure_installations()))
