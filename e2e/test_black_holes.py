"""Topic suite: a worker whose runtime can't host tasks, beside a healthy one, takes no task and shows the reason."""

from __future__ import annotations

import shutil
import stat
from pathlib import Path

from testkit.processes import wait_until
from testkit.servers.airflow import Airflow
from testkit.worker import WORK

from .conftest import NewWorker

BROKEN = "libfoo.so.1: cannot open shared object file"


def _broken_runtime(root: Path) -> Path:
    """Return the runtime's interpreter with a package that can't be imported."""
    site = root / "site"
    site.mkdir(parents=True)
    (site / "setproctitle.py").write_text(f"raise ImportError({BROKEN!r})\n")
    python = root / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH={site} exec {WORK / "runtime/bin/python"} "$@"\n')
    python.chmod(python.stat().st_mode | stat.S_IXUSR)
    return python


def test_a_broken_runtime_takes_no_task_and_shows_its_alarm(central: Airflow, new_worker: NewWorker, home: Path) -> None:
    healthy = new_worker(central, "sound-machine", queues="black-hole", slots=4)
    broken = new_worker(central, "black-hole", queues="black-hole", slots=20, runtime=_broken_runtime(home / "broken-runtime"))

    run = central.trigger("black_hole")
    assert central.wait_for_run("black_hole", run) == "success"
    tasks = central.task_instances("black_hole", run)
    assert len(tasks) == 20
    assert {job["worker_name"] for job in central.jobs(run)} == {"sound-machine"}

    (row,) = [row for row in central.remote_api("workers", flagged="true") if row["name"] == "black-hole"]
    assert BROKEN in row["unfit"]
    status = broken.status()
    assert BROKEN in status["runtime_trouble"]
    assert status["free_slots"] == 0
    assert healthy.status()["runtime_trouble"] == ""
    assert "FAIL canary" in (checked := broken.run("check", may_fail=True)) and BROKEN in checked
    assert "ok   canary" in healthy.run("check")

    # After the repair it takes tasks without a restart.
    shutil.rmtree(home / "broken-runtime/site")
    wait_until(lambda: broken.status()["free_slots"] == 20, timeout_s=60, what="the repaired runtime is detected")
    assert central.remote_api("workers", "black-hole")["unfit"] == ""
