"""A log file on a full disk. Most tests simulate that with `RLIMIT_FSIZE` (EFBIG); one uses a real full disk."""

from __future__ import annotations

import json
import os
import resource
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from airflow_remote_worker.shim.lossy import TRY_AGAIN_S, LossyFile


class FullDisk:
    """Files may not grow beyond a size."""

    def fill_at(self, size: int) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

    def make_room(self) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


@pytest.fixture
def disk() -> Iterator[FullDisk]:
    disk = FullDisk()
    yield disk
    disk.make_room()


class Hand:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_lines_that_fit_are_written_unchanged(tmp_path: Path) -> None:
    with LossyFile(tmp_path / "log") as log:
        log.write(b"one\n")
        log.write(b"two\n")
    assert (tmp_path / "log").read_bytes() == b"one\ntwo\n"


def test_a_full_disk_fails_no_write_and_the_log_notes_the_missing_bytes(tmp_path: Path, disk: FullDisk) -> None:
    now = Hand()
    log = LossyFile(tmp_path / "log", clock=now)
    log.write(b"first\n")
    disk.fill_at(10)
    assert log.write(b"second\n") == 7  # 4 of its bytes fit
    assert log.write(b"third\n") == 6
    assert log.lost == 3 + 6
    disk.make_room()
    log.write(b"at once\n")  # too soon for another attempt
    now.now += TRY_AGAIN_S
    log.write(b"last\n")
    lines = (tmp_path / "log").read_bytes().splitlines()
    assert lines[:2] == [b"first", b"seco"]
    assert f"{3 + 6 + 8} bytes of this log were lost here: file too large" in json.loads(lines[2])["event"]
    assert lines[3:] == [b"last"]


def test_a_note_that_does_not_fit_is_written_later(tmp_path: Path, disk: FullDisk) -> None:
    now = Hand()
    log = LossyFile(tmp_path / "log", clock=now)
    disk.fill_at(20)
    log.write(b"x" * 30 + b"\n")
    now.now += TRY_AGAIN_S
    disk.fill_at(60)
    assert not log.mark()
    assert log.lost == 11
    now.now += TRY_AGAIN_S
    disk.make_room()
    assert log.mark()
    assert b"11 bytes" in (tmp_path / "log").read_bytes().splitlines()[-1]


def test_other_errors_are_raised(tmp_path: Path) -> None:
    log = LossyFile(tmp_path / "log")
    os.close(log.fileno())
    with pytest.raises(OSError, match="Bad file descriptor"):
        log.write(b"x")
    log._owns = False


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Return a function that mounts a disk of so many KiB. Needs root, which CI has."""
    mounted: list[Path] = []

    def mount(kib: int) -> Path:
        place = tmp_path / f"disk{len(mounted)}"
        place.mkdir()
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", str(place)], capture_output=True, text=True)
        if done.returncode != 0:
            pytest.skip(f"no disk can be mounted here: {done.stderr.strip()}")
        mounted.append(place)
        return place

    yield mount
    for place in mounted:
        subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_real_full_disk_loses_only_log_lines(small_disk: Callable[[int], Path]) -> None:
    place = small_disk(64)
    now = Hand()
    log = LossyFile(place / "log", clock=now)
    for _ in range(100):
        log.write(b"y" * 999 + b"\n")
    assert log.lost > 0
    (place / "log").rename(place / "kept")  # the open file is still written; no space is freed
    assert not log.mark()
    os.truncate(place / "kept", 8192)
    assert log.mark()
    assert b"no space left on device" in (place / "kept").read_bytes()
