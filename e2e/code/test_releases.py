"""Topic suite: a worker changes to other releases of itself, some of them broken, while a task of a real Airflow runs on.

The releases are added by `airflow remote releases add`, from the wheels that these tests install from.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from airflow_remote_provider import __version__

from testkit.processes import wait_until
from testkit.servers.airflow import Airflow
from testkit.wheels import write_wheels
from testkit.worker import Worker

from .conftest import Pushing, dag_source

LONG = """import os, time
from pathlib import Path
directory = Path("{directory}")
(directory / "pid").write_text(str(os.getpid()))
while not (directory / "go").exists():
    time.sleep(0.1)
return os.getpid()"""
UPGRADE = """
from sqlalchemy import update
from airflow_remote_provider import compat
from airflow_remote_provider.ledger import releases
from airflow_remote_provider.models import Worker, WorkerContact

def upgrade(session):
    releases.must_lock(session).built_with = {{"provider": "0.0.1"}}
    others = session.query(Worker.id).where(Worker.name != "{worker}")
    session.execute(update(WorkerContact).where(WorkerContact.worker_id.in_(others)).values(last_seen_at=None))

compat.in_transaction(upgrade)
"""
"""Notes that an older provider has added the newest release, and that the workers of other tests were away for long."""
WITHDRAW = """
from airflow_remote_provider import compat
from airflow_remote_provider.ledger import releases, runtimes

def withdraw(session):
    row = releases.must_lock(session)
    row.serial, row.previous, row.percent = 0, 0, 0
    runtimes.note_change(session, row, "the test")

compat.in_transaction(withdraw)
"""
"""Lets all workers have what is installed. Users can't: they roll out an earlier serial instead."""
CRASH = """

def fail(self):
    import ctypes
    ctypes.string_at(0)


ReleaseKeeper.note_answer = fail
"""
NO_WAY = """

async def lost(self, request):
    from airflow_remote_worker import errors
    raise errors.Unreachable("no way to central")


Link.open_session = lost
"""
BROKEN = {
    "ends by a segmentation fault": ("update/keeper", CRASH, "it was ended by SIGSEGV during its trial"),
    "cannot connect": ("link/client", NO_WAY, "it did not reach central within 20 s"),
    "cannot be imported": ("daemon", "\nimport no_such_module\n", "its self-test ended with 1"),
}


@dataclass(frozen=True)
class Releasing:
    """Central's releases, rolled out to one worker only: other tests' workers share the deployment."""

    airflow: Airflow
    directory: Path

    def add(self, version: str, changes: Mapping[str, str] | None = None) -> int:
        """Add a release that is made of the wheels that these tests install from; return its serial."""
        wheels = self.directory / version
        write_wheels(wheels, version, changes or {})
        self.airflow.cli("remote", "releases", "add", version, "--wheels", str(wheels), timeout_s=240)
        return int(self.airflow.remote_api("releases")["about"]["built"])

    def roll(self, worker: str, **options: object) -> int:
        about = self.airflow.remote_change("POST", "releases", "roll", labels={"worker": worker}, **options)
        return int(about["serial"])

    def held(self, worker: str) -> dict[str, Any]:
        """Return what central shows of the worker's release."""
        return dict(self.airflow.remote_api("workers", worker)["release"] or {})

    def await_phase(self, worker: str, serial: int, phase: str) -> str:
        """Return the detail."""

        def found() -> list[str]:
            held = self.held(worker)
            return [held["detail"]] if (held.get("serial"), held.get("phase")) == (serial, phase) else []

        (detail,) = wait_until(found, timeout_s=150, what=f"serial {serial} is {phase}")  # type: ignore[misc]
        return str(detail)

    def tree(self, serial: int) -> str:
        return str(next(row["tree"] for row in self.airflow.remote_api("releases")["editions"] if row["serial"] == serial))


@pytest.fixture
def releasing(pushing: Pushing, tmp_path: Path) -> Releasing:
    return Releasing(pushing.airflow, tmp_path / "wheels")


@pytest.fixture
def following(releasing: Releasing) -> Iterator[Releasing]:
    """As :func:`releasing`, for a test that rolls a release out to all workers, which those of other tests must not get."""
    yield releasing
    run_on_central(releasing.airflow, WITHDRAW)


def run_on_central(central: Airflow, script: str) -> None:
    subprocess.run([sys.executable, "-c", script], env=central.environment, cwd=central.home, check=True, timeout=60)


@pytest.fixture
def new_worker(home: Path, pushing: Pushing) -> Iterator[Callable[[str], Worker]]:
    workers: list[Worker] = []

    def start(name: str) -> Worker:
        token = pushing.airflow.enrolment_token(queues=name, name_pattern=name)
        worker = Worker(home / name, name=name, central=pushing.airflow.url, token=token)
        with (worker.state / "worker.toml").open("a") as file:
            file.write("\n[poll]\nmax_wait_s = 2\n\n[update]\nprove_within_s = 20\n")
        workers.append(worker)
        worker.start()
        pushing.airflow.remote_change("PUT", "workers", name, "labels", labels={"worker": name})
        return worker

    yield start
    for worker in workers:
        worker.stop()


def begin(pushing: Pushing, name: str, directory: Path) -> tuple[str, psutil.Process]:
    """Start a task that runs until the file `go` exists; return its run and its process."""
    pushing.write(f"{name}.py", dag_source(name, name, LONG.format(directory=directory)))
    pushing.parse(name)
    run = pushing.airflow.trigger(name)
    wait_until((directory / "pid").exists, timeout_s=120, what="the task runs")
    return run, psutil.Process(int((directory / "pid").read_text()))


def finish(pushing: Pushing, name: str, run: str, directory: Path, task: psutil.Process) -> None:
    """Let the task end, and check that it was the same process, as one job."""
    assert task.is_running()
    (directory / "go").touch()
    assert pushing.airflow.wait_for_run(name, run, timeout_s=120) == "success", pushing.airflow.task_log(name, run, "main")
    assert pushing.airflow.xcom(name, run, "main") == task.pid
    (job,) = pushing.airflow.jobs(run)
    assert job["epoch"] == 1


def test_a_worker_goes_up_and_down_while_a_task_runs(
    pushing: Pushing, releasing: Releasing, new_worker: Callable[[str], Worker], tmp_path: Path
) -> None:
    name = "releases_change"
    first, second = releasing.add("0.2.0"), releasing.add("0.3.0")
    worker = new_worker(name)
    run, task = begin(pushing, name, tmp_path)
    pid = worker.pid
    for repeated in (first, second, first):
        serial = releasing.roll(name, to=repeated)
        releasing.await_phase(name, serial, "running")
    assert not releasing.held(name)["is_installed"]
    assert (worker.pid, worker.is_running()) == (pid, True)
    assert releasing.tree(first) in psutil.Process(pid).cmdline()[0]
    wait_until(lambda: worker.status()["version"] == "0.2.0", timeout_s=30, what="the status names the release")
    assert worker.status()["release"]["serial"] == serial
    finish(pushing, name, run, tmp_path, task)


@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_release_is_undone_while_a_task_runs(
    pushing: Pushing, releasing: Releasing, new_worker: Callable[[str], Worker], tmp_path: Path, how: str
) -> None:
    name = f"releases_{how.split()[-1]}"
    module, text, reason = BROKEN[how]
    worker = new_worker(name)
    run, task = begin(pushing, name, tmp_path)
    pid = worker.pid
    releasing.add("0.4.0", {module: text})
    serial = releasing.roll(name)
    assert reason in releasing.await_phase(name, serial, "failed")
    assert releasing.held(name)["is_installed"]
    assert (worker.pid, worker.is_running()) == (pid, True)
    about = pushing.airflow.remote_api("releases")["about"]
    assert about["halted"].startswith(f"worker {name}: "), "the failure halts the rollout"
    finish(pushing, name, run, tmp_path, task)


@pytest.mark.timeout(900)  # the duty looks once a minute: when it begins, and when the first worker has proven the release
def test_a_release_follows_an_upgrade_of_central_while_a_task_runs(
    pushing: Pushing, following: Releasing, new_worker: Callable[[str], Worker], tmp_path: Path
) -> None:
    name = "releases_follow"
    first = following.add("0.0.1")
    worker = new_worker(name)
    run, task = begin(pushing, name, tmp_path)
    assert pushing.airflow.remote_change("POST", "releases", "roll", percent=100)["serial"] == first
    following.await_phase(name, first, "running")
    run_on_central(pushing.airflow, UPGRADE.format(worker=name))

    def about() -> dict[str, Any]:
        return dict(pushing.airflow.remote_api("releases")["about"])

    wait_until(lambda: about()["serial"] == first + 1, timeout_s=400, what="central adds its release, and rolls it out")
    assert (about()["version"], about()["previous"], about()["updated_by"]) == (__version__, first, "follow")
    following.await_phase(name, first + 1, "running")
    assert worker.status()["version"] == __version__
    wait_until(lambda: about()["percent"] == 100, timeout_s=200, what="it is rolled out to all")
    assert about()["halted"] == ""
    finish(pushing, name, run, tmp_path, task)
