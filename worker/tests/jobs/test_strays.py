from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import psutil
import pytest
from airflow_remote_worker import system
from airflow_remote_worker.jobs.strays import end_strays, find_strays
from airflow_remote_worker.local import job_files
from airflow_remote_worker.state.spool import ShimRecord

from ..conftest import eventually

NAME = "a-job.1"
Started = list[subprocess.Popen[bytes]]


@pytest.fixture
def started() -> Iterator[Started]:
    processes: Started = []
    yield processes
    for process in processes:
        process.kill()
        process.wait()


def start(started: Started, *argv: str, mark: str = "", session: bool = True) -> subprocess.Popen[bytes]:
    environ = {**os.environ, **({job_files.JOB_MARK: mark} if mark else {})}
    started.append(subprocess.Popen(argv, env=environ, start_new_session=session, stdout=subprocess.PIPE))
    return started[-1]


def test_processes_with_the_job_s_mark_are_found_in_any_session(started: Started) -> None:
    ours = start(started, "sleep", "60", mark=NAME)
    start(started, "sleep", "60", mark="a-job.2")
    start(started, "sleep", "60")
    assert [process.pid for process in find_strays(NAME, None)] == [ours.pid]


def test_processes_in_a_dead_shim_s_session_are_found_without_a_mark(started: Started) -> None:
    shim = start(started, "sh", "-c", "sleep 60 & echo $!; exec cat /dev/null")
    assert shim.stdout
    left = int(shim.stdout.readline())
    record = ShimRecord(shim.pid, 0.0, system.birth_mark(shim.pid) or "")
    shim.wait()
    assert [process.pid for process in find_strays(NAME, record)] == [left]
    assert end_strays(NAME, record) == [f"sleep ({left})"]
    eventually(lambda: not psutil.pid_exists(left), 30)  # the system may need a moment


def test_a_later_process_with_the_shim_s_number_is_left_alone(started: Started) -> None:
    stranger = start(started, "sleep", "60")
    for mark in (f"{system.boot_id()}:1", "an-earlier-boot:1"):
        assert end_strays(NAME, ShimRecord(stranger.pid, 0.0, mark)) == []
    assert stranger.poll() is None


def test_processes_that_ignore_sigterm_are_killed(started: Started) -> None:
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)"
    deaf = start(started, sys.executable, "-c", code, mark=NAME)
    assert deaf.stdout and deaf.stdout.readline()
    assert len(end_strays(NAME, None, wind_down_s=0.3)) == 1
    eventually(lambda: not psutil.pid_exists(deaf.pid), 30)  # the system may need a moment
