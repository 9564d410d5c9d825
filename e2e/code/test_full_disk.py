"""Topic suite: code that does not fit on the worker's disk declines its job with the reason; the job runs when there is room."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from testkit.processes import wait_until

from .conftest import NewEmptyWorker, Pushing, dag_source, noise, wait_until_published

LARGE = 60_000_000
"""Bytes. The worker keeps 100 MB of its disk free."""


@pytest.fixture
def disk(home: Path) -> Iterator[Path]:
    """Mount a disk of 150 MB. Needs root, as in CI."""
    place = home / "code-disk"
    place.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=150m", "tmpfs", str(place)], capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"no disk can be mounted here: {done.stderr.strip()}")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_code_that_does_not_fit_waits_for_room(pushing: Pushing, new_empty_worker: NewEmptyWorker, disk: Path) -> None:
    large = pushing.write("large.bin", noise(LARGE))
    try:
        pushing.write("no_room.py", dag_source("no_room", "no-room", "return 'fits now'"))
        pushing.parse("no_room")
        before = wait_until_published(pushing, "dags-folder", timeout_s=120)["scanned_at"]
        wait_until(
            lambda: wait_until_published(pushing, "dags-folder")["scanned_at"] != before, timeout_s=120, what="it is published"
        )
        worker = new_empty_worker("no-room", settings=f'[code]\npath = "{disk}/code"')
        daemon = worker.pid
        run = pushing.airflow.trigger("no_room")

        def reason() -> str:
            return str(next((job["reason"] for job in pushing.airflow.jobs(run)), ""))

        wait_until(lambda: "declined by no-room" in reason(), timeout_s=60, what="the job is declined")
        assert "disk full: code needs" in reason()
        assert "code.path" in reason()
        assert not list((disk / "code/trees").glob("[0-9a-f]*"))

        subprocess.run(["mount", "-o", "remount,size=600m", str(disk)], check=True)
        assert pushing.airflow.wait_for_run("no_room", run) == "success"
        assert pushing.airflow.xcom("no_room", run, "main") == "fits now"
        assert pushing.airflow.task_instance("no_room", run, "main")["try_number"] == 1
        assert worker.pid == daemon
    finally:
        large.write_bytes(b"")
