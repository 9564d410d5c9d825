"""Topic suite, promise 7: while the worker's disk is full, running tasks continue and new ones are declined with the reason."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.conftest import NewWorker
from testkit.processes import wait_until
from testkit.servers.airflow import Airflow
from testkit.worker import Worker


@pytest.fixture
def disk(home: Path) -> Iterator[Path]:
    """Mount a disk of 150 MB, of which the worker requires 100 MB free. Needs root, as in CI."""
    place = home / "small-disk/state"
    place.mkdir(parents=True)
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=150m", "tmpfs", str(place)], capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"no disk can be mounted here: {done.stderr.strip()}")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.fixture
def worker(disk: Path, central: Airflow, new_worker: NewWorker) -> Iterator[Worker]:
    worker = new_worker(central, "small-disk", queues="small-disk", slots=4)
    yield worker
    worker.stop()


def test_a_full_disk_harms_no_running_task_and_takes_no_new_one(
    central: Airflow, worker: Worker, disk: Path, tmp_path: Path
) -> None:
    """7. Disk full: the running task is not affected, the new one is declined with the reason, the log has a mark, and no restart
    is needed afterwards."""
    run = central.trigger("chatty", {"directory": str(tmp_path)})
    wait_until((tmp_path / "begun").exists, timeout_s=60, what="the task prints")
    daemon = worker.pid

    ballast = fill(disk)
    (tmp_path / "full").touch()
    wait_until((tmp_path / "printed").exists, timeout_s=30, what="the task has printed everything with a full disk")
    other = central.trigger("brief")
    wait_until(lambda: reason(central, other), timeout_s=30, what="the second job is declined")
    assert "declined by small-disk: the offer can't be stored: disk full: only 0 MB are free" in reason(central, other)
    assert central.jobs(other)[0]["state"] == "queued"

    ballast.unlink()
    assert central.wait_for_run("brief", other) == "success"
    assert central.task_instance("brief", other, "say")["try_number"] == 1
    (tmp_path / "go").touch()
    assert central.wait_for_run("chatty", run) == "success"
    assert central.task_instance("chatty", run, "talk")["try_number"] == 1
    assert central.xcom("chatty", run, "talk") == "unharmed"
    assert worker.pid == daemon
    log = central.log_file("chatty", run, "talk").read_text()
    assert log.index('"before"') < log.index("bytes of this log were lost here") < log.index('"after"')
    assert log == worker_log(worker, run, central)
    assert not worker.status()["disk_trouble"]


def fill(disk: Path) -> Path:
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (1 << 20, 512):
            try:
                while True:
                    file.write(b"\0" * size)
            except OSError:
                continue
    return ballast


def reason(central: Airflow, run: str) -> str:
    jobs = central.jobs(run)
    return str(jobs[0]["reason"] or "") if jobs else ""


def worker_log(worker: Worker, run: str, central: Airflow) -> str:
    (job,) = central.jobs(run)
    (log,) = worker.state.glob(f"jobs/{job['id']}.*/task.log")
    assert json.loads((log.parent / "closed.json").read_bytes())["how"] == "acknowledged"
    return log.read_text()
