"""Releases that lack nothing, as central sends them, and a real task that runs on through a change of the release."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import airflow_remote_protocol
import airflow_remote_worker
import psutil
import pytest
from airflow_remote_protocol.messages import ReleasePhase
from airflow_remote_protocol.states import JobState
from airflow_remote_worker.config import RuntimeConfig
from airflow_remote_worker.testing.code import keep_raw
from airflow_remote_worker.testing.fake_central import FakeCentral
from packaging.requirements import Requirement

from .conftest import RunningWorker, eventually

pytestmark = [pytest.mark.runtime, pytest.mark.timeout(300)]

DAG = """
import os, time
from pathlib import Path
from airflow.sdk import dag, task

@dag(schedule=None)
def a_dag():
    @task
    def a_task():
        print("began", os.getpid())
        while not Path("{go}").exists():
            time.sleep(0.05)
        print("ended", os.getpid())
    a_task()

a_dag()
"""


def files_of_dependencies() -> dict[str, bytes]:
    """Return the files of everything that the worker needs, by path below `site-packages`."""
    found: dict[str, bytes] = {}
    wanted, seen = ["httpx", "psutil", "truststore", "msgspec"], set()
    while wanted:
        name = wanted.pop()
        if name in seen:
            continue
        seen.add(name)
        about = importlib.metadata.distribution(name)
        for path in about.files or ():
            if ".." not in path.parts and "__pycache__" not in path.parts:
                found[path.as_posix()] = Path(str(path.locate())).read_bytes()
        required = map(Requirement, about.requires or ())
        wanted += [one.name for one in required if one.marker is None or one.marker.evaluate({"extra": ""})]
    return found


def make_files(version: str) -> dict[str, bytes]:
    files = {f"site-packages/{path}": content for path, content in files_of_dependencies().items()}
    for package in (airflow_remote_worker, airflow_remote_protocol):
        root = Path(str(package.__file__)).parent
        for path in root.rglob("*.py"):
            files[f"site-packages/{root.name}/{path.relative_to(root).as_posix()}"] = path.read_bytes()
    files["site-packages/airflow_remote_worker/__init__.py"] = f'__version__ = "{version}"\n'.encode()
    files["release.json"] = json.dumps({"format": 1, "version": version, "python": f"3.{sys.version_info[1]}"}).encode()
    return files


@pytest.fixture
def worker(central: FakeCentral, tmp_path: Path) -> Iterator[RunningWorker]:
    python = os.environ.get("AIRFLOW_REMOTE_TEST_RUNTIME")
    if not python:
        pytest.skip("AIRFLOW_REMOTE_TEST_RUNTIME names no interpreter of a task runtime")
    central.code.encode = keep_raw
    worker = RunningWorker(central, tmp_path, runtime=RuntimeConfig(python=Path(python)))
    worker.join()
    yield worker
    worker.end_processes()


def test_a_real_task_runs_on_while_the_worker_changes_its_release_twice(
    central: FakeCentral, worker: RunningWorker, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    (worker.bundle / "a_dag.py").write_text(DAG.format(go=go))
    command = [sys.executable, "-m", "airflow_remote_worker", "run", "--state", str(worker.state.root)]
    command += ["--runtime-python", str(worker.config.runtime.python), "--bundle", f"dags-folder={worker.bundle}"]
    process = subprocess.Popen(command)
    try:
        running = central.enqueue("q")
        eventually(lambda: b"began" in central.log_bytes(running), timeout_s=120)
        for version in ("0.2.0", "0.3.0"):
            wanted = central.release(central.code.publish(make_files(version)), version)
            eventually(lambda tree=wanted.tree.digest: central.running_release("w1") == tree, timeout_s=120)
            eventually(lambda: (held := central.held_release("w1")) and held.phase is ReleasePhase.RUNNING)
        assert process.poll() is None
        assert wanted.tree.digest in psutil.Process(process.pid).cmdline()[0]
        later = central.enqueue("q")
        go.touch()
        for job_id in (running, later):
            central.wait_for_state(job_id, JobState.SUCCEEDED, timeout_s=120)
        words = central.log_bytes(running).decode()
        began, ended = re.search(r"began (\d+)", words), re.search(r"ended (\d+)", words)
        assert began and ended and began[1] == ended[1]
        assert central.job_epoch(running) == 1
    finally:
        process.kill()
        process.wait()
