"""Descriptors that signal an exit, and descendants that are found in any session."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from airflow_remote_worker.shim import posix

from .conftest import wait_until

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="Linux's alone")

DAEMONISE = """
import os, signal, sys, time
if os.fork(): os._exit(0)
os.setsid()
if os.fork(): os._exit(0)
if "ignores-sigterm" in sys.argv: signal.signal(signal.SIGTERM, signal.SIG_IGN)
open(sys.argv[1], "w").write(str(os.getpid()))
time.sleep(60)
"""


@on_linux
def test_the_descriptor_becomes_readable_at_the_exit() -> None:
    process = subprocess.Popen(["sleep", "0.1"])
    watch = posix.watch_exit(process.pid)
    assert watch is not None
    assert select.select([watch], [], [], 10)[0] == [watch]
    assert process.poll() == 0
    os.close(watch)


def test_a_missing_descriptor_is_not_an_error() -> None:
    assert posix.watch_exit(2**22 + 1) is None


def as_a_shim(body: str, tmp_path: Path) -> str:
    """Run *body* in a process that is detached like a shim; return its output."""
    (tmp_path / "daemonise.py").write_text(DAEMONISE)
    code = f"""
import os, pathlib, subprocess, sys, time
from airflow_remote_worker.shim import posix
here = pathlib.Path({str(tmp_path)!r})
out = os.dup(1)
posix.detach(here)
def say(*words): os.write(out, (" ".join(map(str, words)) + "\\n").encode())
def daemonise(*how):
    subprocess.run([sys.executable, here / "daemonise.py", here / "pid", *how], check=True)
    while not (here / "pid").exists() or not (here / "pid").read_text(): time.sleep(0.01)
    return int((here / "pid").read_text())
{body}
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr + (tmp_path / "shim.log").read_text()
    return done.stdout


@on_linux
@pytest.mark.parametrize("how", ["", "ignores-sigterm"])
def test_a_daemonised_process_is_ended_and_named(tmp_path: Path, how: str) -> None:
    output = as_a_shim(f"pid = daemonise({how!r})\nsay(pid, posix.Leftovers(wind_down_s=0.5).end())", tmp_path)
    pid = int(output.split()[0])
    assert f"({pid})" in output
    wait_until(lambda: not psutil.pid_exists(pid), 30)  # the system may need a moment


@on_linux
def test_orphans_are_reaped_and_the_task_is_left_to_its_supervisor(tmp_path: Path) -> None:
    output = as_a_shim(
        """
task = subprocess.Popen(["true"])
orphan = daemonise()
os.kill(orphan, 9)
while os.path.exists(f"/proc/{orphan}"):
    posix.reap_orphans(but=task.pid)
    time.sleep(0.01)
say(task.wait())
""",
        tmp_path,
    )
    assert output == "0\n"


def test_without_left_processes_the_end_does_not_wait(tmp_path: Path) -> None:
    assert as_a_shim("posix.time.sleep = lambda seconds: say('waits'); say(posix.Leftovers().end())", tmp_path) == "[]\n"


@on_linux
def test_a_task_is_killed_before_the_daemon_when_memory_is_short(tmp_path: Path) -> None:
    ours = int(Path("/proc/self/oom_score_adj").read_text())
    body = "say(subprocess.run(['cat', '/proc/self/oom_score_adj'], capture_output=True, text=True).stdout)"
    output = as_a_shim(body, tmp_path)
    assert int(output) == max(ours, posix.OOM_SCORE)


@on_linux
def test_processes_that_end_by_themselves_are_not_reported(tmp_path: Path) -> None:
    output = as_a_shim("subprocess.Popen(['sh', '-c', 'sleep 0.1 &']).wait(); say(posix.Leftovers().end())", tmp_path)
    assert output == "[]\n"
