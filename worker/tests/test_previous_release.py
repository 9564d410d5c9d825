"""Topic suite: what one release has written into the state directory, the release after it reads, and the one before it too.

A worker is updated, and set back, while it holds a job that runs, another one whose end central doesn't know yet, and its log.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from airflow_remote_protocol.states import JobState
from airflow_remote_worker.config import RuntimeConfig
from airflow_remote_worker.testing.fake_central import FakeCentral

from testkit import previous

from .conftest import FAKE_RUNTIME, RunningWorker, eventually, is_running

pytestmark = [previous.NEEDED, pytest.mark.timeout(300)]  # the first test installs the previous release

RUN = """
import pathlib, sys
from airflow_remote_worker import cli
from airflow_remote_worker.jobs import {module}
{module}.LAUNCHER = pathlib.Path({runtime!r})
sys.exit(cli.main())
"""
"""A worker's program, with the fake runtime of its release."""

AWAIT = """elif verb == "await":
                    while not Path(rest).exists():
                        daemon.sleep(0.05)
                """


class Releases:
    """A worker with one state directory, whose program is that of this release or of the previous one."""

    def __init__(self, worker: RunningWorker) -> None:
        self.worker = worker
        runtime = worker.state.root.parent / "previous_runtime.py"
        # That release's own, since shims read and write its files; it lacks one verb.
        text = (previous.sources() / "worker/tests/fake_runtime.py").read_text()
        runtime.write_text(text.replace('elif verb == "deaf":', AWAIT + 'elif verb == "deaf":'))
        self._programs = {
            "previous": (previous.worker_program().with_name("python"), RUN.format(module="process", runtime=str(runtime))),
            "this": (Path(sys.executable), RUN.format(module="launcher", runtime=str(FAKE_RUNTIME))),
        }

    def start(self, release: str) -> subprocess.Popen[bytes]:
        python, code = self._programs[release]
        command = [str(python), "-c", code, "run", "--state", str(self.worker.state.root), "--slots", "4"]
        command += ["--runtime-python", str(python), "--bundle", f"dags-folder={self.worker.bundle}"]
        environ = {name: value for name, value in os.environ.items() if name != "PYTHONPATH" or release == "this"}
        return self.worker.keep(subprocess.Popen(command, env=environ))


@pytest.fixture
def releases(central: FakeCentral, tmp_path: Path) -> Iterator[Releases]:
    worker = RunningWorker(central, tmp_path, runtime=RuntimeConfig(python=Path(sys.executable)))
    worker.join()
    yield Releases(worker)
    worker.end_processes()


@pytest.mark.parametrize(("first", "second"), [("previous", "this"), ("this", "previous")])
def test_a_release_goes_on_with_what_another_one_has_written(
    central: FakeCentral, releases: Releases, tmp_path: Path, first: str, second: str
) -> None:
    worker = releases.worker
    pauses = [tmp_path / name for name in ("end", "go")]
    daemon = releases.start(first)
    ended = worker.enqueue(script(pauses[0], "write POST xcoms/dag/run/task/key 7"))
    running = worker.enqueue(script(pauses[1]))
    eventually(lambda: all(b"one" in central.log_bytes(job) for job in (ended, running)), timeout_s=60)
    central.go_down()
    pauses[0].touch()
    eventually((worker.job_dir(ended) / "result.json").exists, timeout_s=30)
    daemon.kill()
    daemon.wait()
    shim = json.loads((worker.job_dir(running) / "shim.json").read_bytes().partition(b"\n")[0])
    central.come_back()

    releases.start(second)
    central.wait_for_state(ended, JobState.SUCCEEDED, timeout_s=60)
    assert is_running(shim["pid"])
    pauses[1].touch()
    central.wait_for_state(running, JobState.SUCCEEDED, timeout_s=60)
    for job, events in ((ended, ["one", "spooled", "two"]), (running, ["one", "two"])):
        assert [event_of(line) for line in central.log_bytes(job).splitlines()] == events
        assert central.job_epoch(job) == 1
    another = worker.enqueue("run\nexit 0")
    central.wait_for_state(another, JobState.SUCCEEDED, timeout_s=60)
    assert not list(worker.state.quarantine.glob("*")), "a release took the other one's files for damaged"


def event_of(line: bytes) -> str:
    return str(json.loads(line)["event"]) if line.startswith(b"{") else line.decode()


def script(pause: Path, *more: str) -> str:
    return "\n".join(["run", "log one", f"await {pause}", *more, "log two", "exit 0"])
