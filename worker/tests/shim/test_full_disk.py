"""The disk of a job's directory fills up while its task runs: a real small disk, a real Task SDK."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from airflow_remote_worker.local import job_files

from .conftest import Job, StubDaemon, ZygoteUnderTest

pytestmark = pytest.mark.runtime

CHATTY_TASK = """
import pathlib, time
from airflow.sdk import DAG, task
def wait_for(name):
    while not pathlib.Path("{flags}", name).exists(): time.sleep(0.02)
with DAG("a_dag", schedule=None):
    @task
    def a_task():
        print("before", flush=True)
        wait_for("full")
        for n in range(3000): print("line", n, "x" * 80, flush=True)
        pathlib.Path("{flags}", "printed").touch()
        wait_for("go")
        print("after", flush=True)
        return "alive"
    a_task()
"""


@pytest.fixture
def on_a_small_disk() -> Iterator[Callable[[Job], Path]]:
    """Return a function that puts the job's directory on a disk of 256 KiB. Needs root, which CI has."""
    mounted: list[Path] = []

    def mount(job: Job) -> Path:
        spec = (job.directory / "job.json").read_bytes()
        argv = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(job.directory)]
        done = subprocess.run(argv, capture_output=True, text=True)
        if done.returncode != 0:
            pytest.skip(f"no disk can be mounted here: {done.stderr.strip()}")
        mounted.append(job.directory)
        (job.directory / "job.json").write_bytes(spec)
        return job.directory

    yield mount
    for place in mounted:
        subprocess.run(["umount", "-l", str(place)], check=True)


def fill(directory: Path) -> Path:
    ballast = directory / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"\0" * 512)
        except OSError:
            return ballast


def wait_for(path: Path) -> None:
    until = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < until, f"no {path}"
        time.sleep(0.02)


def lost(job: Job) -> list[str]:
    lines = (job.directory / "task.log").read_text().splitlines()
    return [json.loads(line)["event"] for line in lines if "of this log were lost here" in line]


def test_a_full_disk_ends_no_task_and_the_log_notes_where_lines_are_missing(
    zygote: ZygoteUnderTest,
    make_job: Callable[..., Job],
    daemon: StubDaemon,
    tmp_path: Path,
    on_a_small_disk: Callable[[Job], Path],
) -> None:
    job = make_job(CHATTY_TASK.format(flags=tmp_path))
    place = on_a_small_disk(job)
    zygote.spawn(job)
    job.wait_for_event("before")
    ballast = fill(place)
    (tmp_path / "full").touch()
    wait_for(tmp_path / "printed")
    ballast.unlink()
    time.sleep(1.1)  # the shim tries the disk once a second
    (tmp_path / "go").touch()
    assert job.result() == job_files.Result(exit_code=0, final_state="success", begun=True)
    assert daemon.reported_states() == ["success"]
    (note,) = lost(job)
    assert "no space left on device" in note
    text = (place / "task.log").read_text()
    assert text.index('"before"') < text.index("were lost here") < text.index('"after"')


def test_a_disk_that_stays_full_still_stores_the_result_and_the_note(
    zygote: ZygoteUnderTest,
    make_job: Callable[..., Job],
    daemon: StubDaemon,
    tmp_path: Path,
    on_a_small_disk: Callable[[Job], Path],
) -> None:
    job = make_job(CHATTY_TASK.format(flags=tmp_path))
    place = on_a_small_disk(job)
    zygote.spawn(job)
    job.wait_for_event("before")
    fill(place)
    (tmp_path / "full").touch()
    (tmp_path / "go").touch()
    assert job.result() == job_files.Result(exit_code=0, final_state="success", begun=True)
    assert daemon.reported_states() == ["success"]
    assert len(lost(job)) == 1


def test_a_disk_that_is_full_from_the_start_does_not_prevent_a_task(
    zygote: ZygoteUnderTest,
    make_job: Callable[..., Job],
    daemon: StubDaemon,
    tmp_path: Path,
    on_a_small_disk: Callable[[Job], Path],
) -> None:
    job = make_job(CHATTY_TASK.format(flags=tmp_path))
    place = on_a_small_disk(job)
    ballast = fill(place)
    for flag in ("full", "go"):
        (tmp_path / flag).touch()
    zygote.spawn(job)
    wait_for(tmp_path / "printed")
    time.sleep(1)
    assert not (place / "result.json").exists()  # it waits for disk space
    ballast.unlink()
    assert job.result() == job_files.Result(exit_code=0, final_state="success", begun=True)
