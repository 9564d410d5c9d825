from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import anyio
import psutil
import pytest
from airflow_remote_worker.clock import SystemClock
from airflow_remote_worker.jobs import process
from airflow_remote_worker.jobs.launcher import Launcher, scrub_environment
from airflow_remote_worker.jobs.process import CannotHost, find_shim, is_alive, kill, record, terminate, wait_for_exit
from airflow_remote_worker.jobs.runtime import RuntimeKeeper
from airflow_remote_worker.local import frames, job_files
from airflow_remote_worker.state.spool import ShimRecord

from ..conftest import FAKE_RUNTIME, HandClock

pytestmark = pytest.mark.timeout(60)


def start(*argv: str) -> tuple[subprocess.Popen[bytes], ShimRecord]:
    child = subprocess.Popen(argv, start_new_session=True)
    process.keep_child(child)
    return child, record(frames.Spawned(job_dir="", pid=child.pid, start_time=0.0))


def test_the_exit_of_a_process_is_noticed_without_polling(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[ShimRecord] = []
    monkeypatch.setattr(process, "is_alive", lambda shim: looks.append(shim) or is_alive(shim))
    _, shim = start("sleep", "0.3")
    anyio.run(wait_for_exit, shim)
    assert looks == [shim], "one look after its descriptor was opened"
    assert not is_alive(shim)


def test_without_pidfd_it_is_noticed_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("airflow_remote_worker.system.open_pidfd", lambda pid: None)
    _, shim = start("sleep", "0.2")
    anyio.run(wait_for_exit, shim)
    assert not is_alive(shim)


def test_an_exited_process_is_not_waited_for() -> None:
    child, shim = start("true")
    child.wait()
    anyio.run(wait_for_exit, shim)


def test_a_later_process_with_the_same_pid_is_not_the_shim() -> None:
    child, shim = start("sleep", "20")
    stranger = ShimRecord(shim.pid, shim.start_time, "another boot:1")
    assert is_alive(shim)
    assert not is_alive(stranger)
    anyio.run(wait_for_exit, stranger)
    terminate(stranger)
    kill(stranger)
    assert child.poll() is None
    kill(shim)
    child.wait()


def test_kill_reaches_children_in_other_sessions(tmp_path: Path) -> None:
    child, shim = start("sh", "-c", f"setsid sleep 60 & echo $! > {tmp_path}/pid; wait")
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
        time.sleep(0.02)
    time.sleep(0.1)
    grandchild = record(frames.Spawned(job_dir="", pid=int((tmp_path / "pid").read_text()), start_time=0.0))
    assert is_alive(grandchild)
    kill(shim)
    child.wait()
    deadline = time.monotonic() + 5
    while is_alive(grandchild):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_shim_is_found_by_the_log_that_it_writes(tmp_path: Path) -> None:
    log = tmp_path / "shim.log"
    assert find_shim(log) is None
    with log.open("w") as output:
        child = subprocess.Popen(["sleep", "20"], stdout=output)
    found = find_shim(log)
    assert found and found.pid == child.pid
    child.kill()
    child.wait()


def test_tasks_see_little_of_our_environment(tmp_path: Path) -> None:
    environ = {
        "PATH": "/bin",
        "LC_ALL": "C",
        "AIRFLOW_REMOTE_WORKER_TOKEN": "t",
        "DB_PASSWORD": "p",
        "AIRFLOW__CORE__FERNET_KEY": "k",
    }
    python = Path("/runtime/bin/python")
    seen = scrub_environment(environ, python=python, airflow_home=tmp_path, extra={"MINE": "1"})
    assert seen == {"PATH": "/runtime/bin:/bin", "LC_ALL": "C", "AIRFLOW_HOME": str(tmp_path), "MINE": "1"}
    assert scrub_environment(environ, python=python, airflow_home=tmp_path, extra={"PATH": "/site"})["PATH"] == "/site"


def launcher(tmp_path: Path, python: Path | None = Path(sys.executable), **env: str) -> Launcher:
    return Launcher(python, env=env, home=tmp_path, zygote_log=tmp_path / "z.log", launcher=FAKE_RUNTIME)


@pytest.mark.parametrize(
    ("python", "message"),
    [
        (None, "no runtime is set"),
        (Path("/nowhere/python"), "can't be started: No such file"),
        (Path("/etc/passwd"), "Permission"),
    ],
)
def test_a_bad_interpreter_is_named_with_the_remedy(tmp_path: Path, python: Path | None, message: str) -> None:
    with pytest.raises(CannotHost, match=message) as caught:
        anyio.run(launcher(tmp_path, python).launch, tmp_path)
    assert "runtime.python" in str(caught.value)


def test_the_zygote_s_inability_is_passed_on(tmp_path: Path) -> None:
    with pytest.raises(CannotHost, match="too old"):
        anyio.run(launcher(tmp_path, FAKE_UNABLE="too old").launch, tmp_path)


def test_a_zygote_ends_with_its_daemon(tmp_path: Path) -> None:
    async def main() -> ShimRecord:
        keeper = launcher(tmp_path)
        async with anyio.create_task_group() as tasks:
            directory = tmp_path / "canary"
            tasks.start_soon(RuntimeKeeper(keeper, directory, HandClock()).run)
            with anyio.fail_after(60):
                while keeper.runtime is None:
                    await anyio.sleep(0.02)
            zygote = record(frames.Spawned(job_dir="", pid=keeper.runtime.pid, start_time=0.0))
            assert is_alive(zygote)
            tasks.cancel_scope.cancel()
        with anyio.fail_after(60):
            await wait_for_exit(zygote)
        return zygote

    assert not is_alive(anyio.run(main))


def test_changed_settings_replace_the_zygote_and_no_job(tmp_path: Path) -> None:
    async def main() -> None:
        keeper = launcher(tmp_path)
        keeper.use_task_settings({"core.default_timezone": "utc"})
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(RuntimeKeeper(keeper, tmp_path / "canary", SystemClock()).run)
            first = await pid_of(keeper)
            keeper.use_task_settings({"core.default_timezone": "utc"})
            await anyio.sleep(0.2)
            assert await pid_of(keeper) == first, "nothing has changed"
            keeper.use_task_settings({"core.default_timezone": "Europe/Berlin"})
            with anyio.fail_after(60):
                while await pid_of(keeper) == first:
                    await anyio.sleep(0.02)
            environment = psutil.Process(await pid_of(keeper)).environ()
            assert json.loads(environment[job_files.TASK_SETTINGS]) == {"core.default_timezone": "Europe/Berlin"}
            tasks.cancel_scope.cancel()

    async def pid_of(keeper: Launcher) -> int:
        with anyio.fail_after(60):
            while keeper.runtime is None:
                await anyio.sleep(0.02)
        return keeper.runtime.pid

    anyio.run(main)
