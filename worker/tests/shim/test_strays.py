"""Processes that a task leaves are ended with its job, in whatever session; with a real Task SDK."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from .conftest import Job, StubDaemon, ZygoteUnderTest, wait_until

pytestmark = pytest.mark.runtime

LEAVING_TASK = """
import os, pathlib, signal, subprocess, sys, time
from airflow.sdk import DAG, task
DAEMON = '''
import os, signal, sys, time
if os.fork(): os._exit(0)
os.setsid()
if os.fork(): os._exit(0)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
with open(sys.argv[1], "w") as f: f.write(str(os.getpid()))
time.sleep(300)
'''
with DAG("a_dag", schedule=None):
    @task
    def a_task():
        held = None if {linger} else subprocess.DEVNULL  # the task's own output, which delays its end
        subprocess.run([sys.executable, "-c", DAEMON, "{pid_file}"], check=True, stdout=held, stderr=held)
        while not pathlib.Path("{pid_file}").exists(): time.sleep(0.01)
        print("left one behind", os.environ["AIRFLOW_REMOTE_JOB"], flush=True)
        if {linger}:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            print("asleep", flush=True)
            time.sleep(300)
    a_task()
"""


def pid_in(path: Path) -> int:
    return int(wait_until(lambda: path.exists() and path.read_text()))


def test_a_background_process_ends_with_its_job_and_the_log_names_it(
    zygote: ZygoteUnderTest, make_job: Callable[..., Job], daemon: StubDaemon, tmp_path: Path
) -> None:
    job = make_job(LEAVING_TASK.format(pid_file=tmp_path / "pid", linger=False))
    zygote.spawn(job)
    assert job.result().final_state == "success"
    pid = pid_in(tmp_path / "pid")
    wait_until(lambda: not psutil.pid_exists(pid), 30)  # the system may need a moment
    assert f"left one behind {job.directory.name}" in job.events()
    assert "Ended processes that the job left running: python" in job.events()
    assert f"({pid})" in job.events()


def test_a_stopped_task_that_ignores_signals_ends_with_its_daemon(
    zygote: ZygoteUnderTest, make_job: Callable[..., Job], daemon: StubDaemon, tmp_path: Path
) -> None:
    job = make_job(LEAVING_TASK.format(pid_file=tmp_path / "pid", linger=True))
    zygote.spawn(job)
    job.wait_for_event("asleep")
    family = [process.pid for process in psutil.Process(job.pid).children(recursive=True)]
    assert pid_in(tmp_path / "pid") in family  # adopted by the shim although it left its session
    daemon.stop_job()
    assert job.result(60).stopped  # the task and then its daemon ignore SIGTERM for 5 s each
    wait_until(lambda: not any(map(psutil.pid_exists, family)), 30)
