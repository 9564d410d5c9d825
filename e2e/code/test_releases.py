"""Topic suite: a worker changes to other releases of itself, some of them broken, while a task of a real Airflow runs on.

The releases have the files of the worker that these tests install from wheels.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from airflow_remote_protocol.messages import ReleasePhase, WantedRelease

from testkit.network.release_proxy import ReleaseProxy
from testkit.processes import wait_until
from testkit.versions import WORK
from testkit.worker import Worker

from .conftest import Pushing, dag_source

LONG = """import os, time
from pathlib import Path
directory = Path("{directory}")
(directory / "pid").write_text(str(os.getpid()))
while not (directory / "go").exists():
    time.sleep(0.1)
return os.getpid()"""
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


@pytest.fixture
def releasing(pushing: Pushing) -> Iterator[ReleaseProxy]:
    with ReleaseProxy(pushing.airflow.url) as proxy:
        yield proxy


@pytest.fixture
def new_worker(home: Path, pushing: Pushing, releasing: ReleaseProxy) -> Iterator[Callable[[str], Worker]]:
    workers: list[Worker] = []

    def start(name: str) -> Worker:
        token = pushing.airflow.enrolment_token(queues=name, name_pattern=name)
        worker = Worker(home / name, name=name, central=releasing.url, token=token)
        with (worker.state / "worker.toml").open("a") as file:
            file.write("\n[poll]\nmax_wait_s = 2\n\n[update]\nprove_within_s = 20\n")
        workers.append(worker)
        return worker.start()

    yield start
    for worker in workers:
        worker.stop()


def files_of(version: str, changes: dict[str, str] | None = None) -> dict[str, bytes]:
    """Return the tree of a release; *changes* is appended to modules, by path."""
    (root,) = (WORK / "worker" / "lib").glob("python3*/site-packages")
    paths = (path for path in root.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    files = {f"site-packages/{path.relative_to(root).as_posix()}": path.read_bytes() for path in paths}
    files["site-packages/airflow_remote_worker/__init__.py"] = f'__version__ = "{version}"\n'.encode()
    for module, text in (changes or {}).items():
        files[f"site-packages/airflow_remote_worker/{module}.py"] += text.encode()
    about = {"format": 1, "version": version, "python": f"3.{sys.version_info[1]}"}
    return {**files, "release.json": json.dumps(about).encode()}


def await_phase(proxy: ReleaseProxy, wanted: WantedRelease, phase: ReleasePhase) -> str:
    """Return the detail."""

    def found() -> bool:
        held = proxy.inventory.release if proxy.inventory else None
        return held is not None and (held.serial, held.phase) == (wanted.serial, phase)

    wait_until(found, timeout_s=150, what=f"release {wanted.version} is {phase.value}")
    assert proxy.inventory is not None and proxy.inventory.release is not None
    return proxy.inventory.release.detail


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
    pushing: Pushing, releasing: ReleaseProxy, new_worker: Callable[[str], Worker], tmp_path: Path
) -> None:
    worker = new_worker("releases_change")
    run, task = begin(pushing, "releases_change", tmp_path)
    pid, first = worker.pid, files_of("0.2.0")
    for version, files in (("0.2.0", first), ("0.3.0", files_of("0.3.0")), ("0.2.0", first)):
        wanted = releasing.send(files, version)
        await_phase(releasing, wanted, ReleasePhase.RUNNING)
        assert releasing.inventory is not None and releasing.inventory.running == wanted.tree.digest
    assert (worker.pid, worker.is_running()) == (pid, True)
    assert wanted.tree.digest in psutil.Process(pid).cmdline()[0]
    wait_until(lambda: worker.status()["version"] == "0.2.0", timeout_s=30, what="the status names the release")
    assert worker.status()["release"]["serial"] == 3
    finish(pushing, "releases_change", run, tmp_path, task)


@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_release_is_undone_while_a_task_runs(
    pushing: Pushing, releasing: ReleaseProxy, new_worker: Callable[[str], Worker], tmp_path: Path, how: str
) -> None:
    name = f"releases_{how.split()[-1]}"
    module, text, reason = BROKEN[how]
    worker = new_worker(name)
    good = releasing.send(files_of("0.2.0"), "0.2.0")
    await_phase(releasing, good, ReleasePhase.RUNNING)
    run, task = begin(pushing, name, tmp_path)
    bad = releasing.send(files_of("0.3.0", {module: text}), "0.3.0")
    assert reason in await_phase(releasing, bad, ReleasePhase.FAILED)
    assert releasing.inventory is not None and releasing.inventory.running == good.tree.digest
    assert worker.is_running()
    finish(pushing, name, run, tmp_path, task)
