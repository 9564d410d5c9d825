"""The whole daemon with the packages of a real runtime that central sends: canary, a real task, a change while it runs."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from airflow_remote_protocol.messages import RuntimePhase, RuntimeRef
from airflow_remote_protocol.states import JobState
from airflow_remote_worker import daemon as daemon_module
from airflow_remote_worker.config import RuntimeConfig
from airflow_remote_worker.testing.code import keep_raw
from airflow_remote_worker.testing.fake_central import FakeCentral

from .conftest import RunningWorker, eventually, no_signals

pytestmark = [pytest.mark.runtime, pytest.mark.timeout(300)]

DAG = """
import os, sys, time
from pathlib import Path
import airflow.sdk
from airflow.sdk import dag, task

@dag(schedule=None)
def a_dag():
    @task
    def a_task():
        import a_local_module
        print("before", airflow.sdk.__file__, sys.executable, os.environ["COLOUR"], a_local_module.NAME)
        while not Path(os.environ["GO"]).exists():
            time.sleep(0.05)
        import croniter  # not loaded by the zygote
        print("after", croniter.__file__, os.environ["COLOUR"])
    a_task()

a_dag()
"""


@pytest.fixture(scope="module")
def packages() -> dict[str, bytes]:
    """The files of the test runtime's packages, by path below `site-packages`."""
    python = os.environ.get("AIRFLOW_REMOTE_TEST_RUNTIME")
    if not python:
        pytest.skip("AIRFLOW_REMOTE_TEST_RUNTIME names no interpreter of a task runtime")
    asked = [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    root = Path(subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip())
    paths = (path for path in root.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {f"site-packages/{path.relative_to(root).as_posix()}": path.read_bytes() for path in paths}


@pytest.fixture
def bare(central: FakeCentral, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunningWorker]:
    central.code.encode = keep_raw
    monkeypatch.setattr(daemon_module, "daemon_signals", no_signals)
    interpreter = Path(os.environ["AIRFLOW_REMOTE_TEST_RUNTIME"])
    worker = RunningWorker(central, tmp_path, runtime=RuntimeConfig(interpreter=interpreter))
    worker.join()
    yield worker
    worker.detach()
    worker.end_processes()


def roll(central: FakeCentral, packages: dict[str, bytes], **env: str) -> RuntimeRef:
    files = {
        **packages,
        "runtime.json": json.dumps({"format": 1, "env": env}).encode(),
        "plugins/a_plugin.py": b"",
        "config/airflow_local_settings.py": b"",
        "config/a_local_module.py": f"NAME = 'local settings of {env['COLOUR']}'".encode(),
    }
    return central.roll("q", central.code.publish(files))


def test_a_real_task_runs_in_what_central_sends_and_keeps_its_runtime_when_that_changes(
    central: FakeCentral, packages: dict[str, bytes], bare: RunningWorker, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    old = roll(central, packages, COLOUR="red", GO=str(go))
    bare.start()
    eventually(lambda: [one.phase for one in central.runtimes("w1")] == [RuntimePhase.READY], timeout_s=200)
    (found,) = central.runtimes("w1")
    assert found.task_sdk.startswith("1.")
    assert found.airflow.startswith("3.")
    (bare.bundle / "a_dag.py").write_text(DAG)
    running = central.enqueue("q")
    eventually(lambda: b"before" in central.log_bytes(running), timeout_s=60)

    new = roll(central, packages, COLOUR="blue", GO=str(go))
    eventually(
        lambda: {one.tree: one.phase for one in central.runtimes("w1")}.get(new.tree.digest) is RuntimePhase.READY, timeout_s=200
    )
    go.touch()
    later = central.enqueue("q")
    for job_id in (running, later):
        central.wait_for_state(job_id, JobState.SUCCEEDED, timeout_s=60)

    for job_id, ref, colour in ((running, old, "red"), (later, new, "blue")):
        log = central.log_bytes(job_id).decode()
        files = bare.state.code / "trees" / ref.tree.digest / "files"
        python = bare.state.code / "runtimes" / ref.tree.digest / "venv/bin/python"
        assert f"before {files}/site-packages/airflow/sdk/__init__.py {python} {colour} local settings of {colour}" in log
        assert f"after {files}/site-packages/croniter/__init__.py {colour}" in log
    pack = central.requests_to(f"trees/{new.tree.digest}/pack")
    assert pack and all("base=" in request.path for request in pack), "only what differs was sent"
