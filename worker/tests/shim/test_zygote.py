"""The zygote's process: its orders, its answers, its children and its end. Most tests use a zygote that preloads nothing."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from airflow_remote_worker.local import frames

from .conftest import Job, ZygoteUnderTest, wait_until

PROGRAM = """
import os, pathlib, sys, threading, time
from airflow_remote_worker.shim import host, zygote
def nothing(): pass
def run(job_dir):
    for name in ("held", "raise"):
        if (job_dir / name).exists():
            (job_dir / "began").touch()
            if name == "raise": raise RuntimeError("no supervisor")
            while (job_dir / name).exists(): time.sleep(0.01)
    (job_dir / "result.json").write_text(str(os.getpid()))
    return 0
zygote.preload = zygote.import_operators = zygote.warm = nothing
zygote.importlib.metadata.version = lambda name: f"version of {name}"
host.run = run
{change}
sys.exit(zygote.main(int(sys.argv[1])))
"""


DAG = """
from airflow.sdk import DAG, task
with DAG("a_dag", schedule=None):
    @task
    def a_task(): ...
    a_task()
"""


class BareZygote:
    """The daemon's end of a zygote without Airflow, whose shims write their pid as `result.json`.

    A shim waits while its directory has a file `held`, and raises if it has a file `raise`.
    """

    def __init__(self, log: Path, change: str) -> None:
        """*change* is Python code that runs before the zygote starts."""
        self.log = log
        self.control, theirs = socket.socketpair()
        self.control.settimeout(10)
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        program = PROGRAM.replace("{change}", change)
        with theirs, log.open("wb") as output:
            argv = [sys.executable, "-c", program, str(theirs.fileno())]
            self.process = subprocess.Popen(argv, pass_fds=[theirs.fileno()], env=environment, stdout=output, stderr=output)
        self.first = frames.receive(self.control)

    def order(self, *directories: Path) -> list[frames.Frame | None]:
        """Send spawn orders for all *directories* at once; return the answers."""
        self.control.sendall(b"".join(frames.pack(frames.Spawn(job_dir=str(path))) for path in directories))
        return [frames.receive(self.control) for _ in directories]

    def spawn(self, directory: Path) -> int:
        [spawned] = self.order(directory)
        assert isinstance(spawned, frames.Spawned)
        return spawned.pid


MakeZygote = Callable[..., BareZygote]


@pytest.fixture
def make_zygote(tmp_path: Path) -> Iterator[MakeZygote]:
    made: list[BareZygote] = []

    def make(change: str = "") -> BareZygote:
        made.append(BareZygote(tmp_path / "zygote.log", change))
        return made[-1]

    yield make
    for held in tmp_path.glob("*/held"):
        held.unlink()
    for one in made:
        one.control.close()
        one.process.wait(10)


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BareZygote]:
    """One for the tests that don't end it."""
    one = BareZygote(tmp_path_factory.mktemp("bare") / "zygote.log", "")
    yield one
    one.control.close()
    assert one.process.wait(10) == 0


def directory(tmp_path: Path, name: str, file: str = "") -> Path:
    path = tmp_path / name
    path.mkdir()
    if file:
        (path / file).touch()
    return path


def test_it_reports_its_runtime_when_it_is_ready(bare: BareZygote) -> None:
    assert bare.first == frames.Ready(pid=bare.process.pid, python=sys.executable, airflow="version of apache-airflow-task-sdk")


def test_spawn_orders_are_answered_in_order(bare: BareZygote, tmp_path: Path) -> None:
    directories = [directory(tmp_path, f"job{n}", "held") for n in range(5)]
    answers = bare.order(*directories)
    assert [answer.job_dir for answer in answers if isinstance(answer, frames.Spawned)] == list(map(str, directories))
    for answer, path in zip(answers, directories, strict=True):
        assert isinstance(answer, frames.Spawned)
        assert abs(psutil.Process(answer.pid).create_time() - answer.start_time) < 0.01
        (path / "held").unlink()
        wait_until((path / "result.json").exists, 10)
        assert wait_until((path / "result.json").read_text, 10) == str(answer.pid)


def test_each_shim_has_its_own_session_and_log(bare: BareZygote, tmp_path: Path) -> None:
    path = directory(tmp_path, "job", "held")
    pid = bare.spawn(path)
    wait_until((path / "began").exists, 10)
    assert os.getsid(pid) == pid
    assert (path / "shim.log").exists()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            "def preload(): raise ImportError('no airflow')\nzygote.preload = preload",
            "(no airflow): install requirements/runtime.lock",
        ),
        ("def warm(): raise ValueError('a plugin')\nzygote.warm = warm", "can't host tasks: ValueError: a plugin"),
    ],
)
def test_a_runtime_that_cannot_be_preloaded_is_answered_with_the_reason(
    make_zygote: MakeZygote, change: str, reason: str
) -> None:
    zygote = make_zygote(change)
    assert isinstance(zygote.first, frames.Unable)
    assert reason in zygote.first.reason
    assert zygote.process.wait(10) == 1


def test_a_failed_fork_is_answered_and_the_next_order_is_served(make_zygote: MakeZygote, tmp_path: Path) -> None:
    zygote = make_zygote(
        "fork, calls = os.fork, []\n"
        "def failing_once():\n"
        "    calls.append(1)\n"
        "    if len(calls) == 1: raise OSError(11, 'no more processes')\n"
        "    return fork()\n"
        "os.fork = failing_once"
    )
    first, second = directory(tmp_path, "first"), directory(tmp_path, "second")
    unable, spawned = zygote.order(first, second)
    assert isinstance(unable, frames.Unable)
    assert unable.job_dir == str(first) and "no more processes" in unable.reason
    assert isinstance(spawned, frames.Spawned)
    wait_until((second / "result.json").exists, 10)
    assert not (first / "result.json").exists()


def test_exited_shims_are_reaped(bare: BareZygote, tmp_path: Path) -> None:
    pids = [bare.spawn(directory(tmp_path, f"job{n}")) for n in range(3)]
    wait_until(lambda: not any(map(psutil.pid_exists, pids)), 10)
    assert bare.process.poll() is None


def test_a_shim_that_raises_ends_without_the_zygote(bare: BareZygote, tmp_path: Path) -> None:
    path = directory(tmp_path, "job", "raise")
    pid = bare.spawn(path)
    wait_until(lambda: not psutil.pid_exists(pid), 10)
    assert "RuntimeError: no supervisor" in (path / "shim.log").read_text()
    bare.spawn(directory(tmp_path, "next"))


def test_it_ends_when_the_daemon_closes_and_its_shims_live_on(make_zygote: MakeZygote, tmp_path: Path) -> None:
    zygote = make_zygote()
    path = directory(tmp_path, "job", "held")
    pid = zygote.spawn(path)
    wait_until((path / "began").exists, 10)
    zygote.control.close()
    assert zygote.process.wait(10) == 0
    assert psutil.pid_exists(pid) and not (path / "result.json").exists()
    (path / "held").unlink()
    wait_until((path / "result.json").exists, 10)


def test_a_shim_does_not_keep_the_control_socket_open(make_zygote: MakeZygote, tmp_path: Path) -> None:
    zygote = make_zygote()
    path = directory(tmp_path, "job", "held")
    zygote.spawn(path)
    wait_until((path / "began").exists, 10)
    zygote.process.kill()
    assert zygote.control.recv(1) == b"", "the daemon notices the death of a zygote although a shim lives"


def test_an_invalid_order_ends_it(make_zygote: MakeZygote) -> None:
    zygote = make_zygote()
    zygote.control.sendall(frames.LENGTH.pack(3) + b"???")
    assert zygote.process.wait(10) == 0
    assert "zygote: lost the daemon" in zygote.log.read_text()


def test_other_frames_are_ignored(bare: BareZygote, tmp_path: Path) -> None:
    bare.control.sendall(frames.pack(frames.Spooled()))
    bare.spawn(directory(tmp_path, "job"))


def test_a_thread_that_a_plugin_started_is_reported(make_zygote: MakeZygote) -> None:
    zygote = make_zygote("threading.Thread(target=time.sleep, args=(60,), name='of a plugin', daemon=True).start()")
    assert isinstance(zygote.first, frames.Ready)
    assert "more than one thread before forking" in zygote.log.read_text()
    assert "of a plugin" in zygote.log.read_text()


@pytest.mark.runtime
def test_orders_at_once_all_run_in_a_real_runtime(zygote: ZygoteUnderTest, make_job: Callable[..., Job]) -> None:
    source = (
        "from airflow.sdk import DAG, task\nwith DAG('a_dag', schedule=None):\n    @task\n    def a_task(): ...\n    a_task()\n"
    )
    jobs = [make_job(source) for _ in range(2)]
    zygote.control.sendall(b"".join(frames.pack(frames.Spawn(job_dir=str(job.directory))) for job in jobs))
    for job in jobs:
        spawned = frames.receive(zygote.control)
        assert isinstance(spawned, frames.Spawned)
        assert spawned.job_dir == str(job.directory)
        job.pid = spawned.pid
    assert [job.result().final_state for job in jobs] == ["success", "success"]
    wait_until(lambda: not any(psutil.pid_exists(job.pid) for job in jobs), 10)
