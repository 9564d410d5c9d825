from __future__ import annotations

import contextlib
import errno
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import anyio
import msgspec
import pytest
from airflow_remote_protocol.states import JobState
from airflow_remote_worker.state import free_space as disk_module
from airflow_remote_worker.state.free_space import LEAST_FILES, Disk, NoRoom
from airflow_remote_worker.testing.fake_central import FakeCentral

from ..conftest import HandClock, RunningWorker, eventually

MB = 1_000_000


class Free:
    bytes = 500 * MB
    files = 10_000

    def __call__(self, path: Path) -> tuple[int, int]:
        return self.bytes, self.files


@pytest.fixture
def free() -> Free:
    return Free()


@pytest.fixture
def disk(tmp_path: Path, clock: HandClock, free: Free) -> Disk:
    return Disk(tmp_path, 100, clock, free=free)


def test_with_room_there_is_no_trouble(disk: Disk) -> None:
    disk.check()
    assert disk.trouble == ""


def test_the_text_about_a_full_disk_has_the_free_and_the_needed_space(disk: Disk, free: Free, tmp_path: Path) -> None:
    free.bytes = 12 * MB
    with pytest.raises(NoRoom) as caught:
        disk.check()
    assert str(caught.value) == (
        f"disk full: only 12 MB are free in {tmp_path}, the worker needs 100 MB (min_free_mb); make room there"
    )


def test_a_disk_without_inodes_is_full_too(disk: Disk, free: Free) -> None:
    free.files = LEAST_FILES - 1
    with pytest.raises(NoRoom, match="inodes"):
        disk.check()


def test_a_disk_that_can_t_be_read_has_no_room(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    def stale(path: Path) -> tuple[int, int]:
        raise OSError(errno.ESTALE, "Stale file handle")

    monkeypatch.setattr(disk, "_free", stale)
    with pytest.raises(NoRoom, match="can't be used"):
        disk.check()


def test_each_change_is_notified_once(disk: Disk, free: Free) -> None:
    changes: list[str] = []
    disk.on_change = lambda: changes.append(disk.trouble)
    for free.bytes in (500 * MB, 99 * MB, 50 * MB, 200 * MB, 300 * MB):
        disk._check()
    assert [bool(change) for change in changes] == [True, False]


def test_a_quota_counts_from_a_failed_write_to_the_next_successful_one(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    disk.note_failure(OSError(errno.EACCES, "no"))
    disk.check()
    monkeypatch.setattr(Disk, "_can_write", lambda self: False)
    disk.note_failure(OSError(errno.EDQUOT, "no"))
    with pytest.raises(NoRoom, match="quota"):
        disk.check()
    monkeypatch.undo()
    disk.check()


def test_space_is_freed_before_work_is_declined(disk: Disk, free: Free) -> None:
    async def give(wanted: int) -> None:
        assert wanted == 90 * MB
        free.bytes += wanted

    async def main() -> None:
        free.bytes = 10 * MB
        with anyio.move_on_after(0.05):
            await disk.watch(give)

    anyio.run(main)
    assert disk.trouble == ""


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """The worker's state directory is a disk of 8 MiB. Needs root, which CI has."""
    place = tmp_path / "state"
    place.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(place)], capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"no disk can be mounted here: {done.stderr.strip()}")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.mark.timeout(60)
def test_while_the_disk_is_full_new_jobs_are_declined_and_running_ones_end(
    small_disk: Path, central: FakeCentral, worker: RunningWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk_module, "CHECK_EVERY_S", 0.2)
    worker.config = msgspec.structs.replace(worker.config, min_free_mb=4)
    worker.start()
    running = worker.enqueue("run\nlog one\nsleep 4\nlog two\nexit 0")
    central.wait_for_state(running, JobState.RUNNING)

    ballast = small_disk / "ballast"
    ballast.write_bytes(b"\0" * 6 * MB)
    waiting = worker.enqueue("run\nexit 0")
    declined = eventually(lambda: central.requests_to("decline"))
    assert json.loads(declined[0].body)["reason"].startswith("the offer can't be stored: disk full: only")
    eventually(lambda: json.loads(worker.state.status_path.read_bytes())["disk_trouble"])
    central.wait_for_state(running, JobState.SUCCEEDED, timeout_s=20)
    assert central.job_state(waiting) == "queued"
    assert len(central.requests_to("decline")) == 1

    ballast.unlink()
    central.wait_for_state(waiting, JobState.SUCCEEDED)
    eventually(lambda: json.loads(worker.state.status_path.read_bytes())["disk_trouble"] == "")


@pytest.mark.timeout(60)
def test_a_worker_starts_on_a_full_disk_and_serves_once_there_is_room(
    small_disk: Path, central: FakeCentral, worker: RunningWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk_module, "CHECK_EVERY_S", 0.2)
    ballast = small_disk / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"\0" * 512)
    worker.config = msgspec.structs.replace(worker.config, min_free_mb=4)
    job_id = worker.enqueue("run\nexit 0")
    worker.start()
    eventually(lambda: central.requests_to("runtime"))  # the canary has no room either, so the worker requests no job
    ballast.unlink()
    central.wait_for_state(job_id, JobState.SUCCEEDED)


@pytest.mark.timeout(60)
def test_a_disk_full_to_the_last_byte_loses_no_outcome(
    small_disk: Path, central: FakeCentral, worker: RunningWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk_module, "CHECK_EVERY_S", 0.2)
    worker.config = msgspec.structs.replace(worker.config, min_free_mb=1)
    worker.start()
    job_id = worker.enqueue("run\nlog one\nsleep 1\nexit 3")
    central.wait_for_state(job_id, JobState.RUNNING)
    (worker.job_dir(job_id) / "report.json").mkdir()  # the daemon can't store its report
    central.wait_for_state(job_id, JobState.FAILED)
    report = central.job(job_id).report
    assert report and report.exit_code == 3
