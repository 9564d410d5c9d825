from __future__ import annotations

import os
from pathlib import Path

import pytest
from airflow_remote_worker.system import posix


def test_a_lock_is_exclusive_and_ends_with_its_descriptor(tmp_path: Path) -> None:
    first = posix.lock(tmp_path / "lock")
    assert first is not None
    assert posix.lock(tmp_path / "lock") is None
    os.close(first)
    again = posix.lock(tmp_path / "lock")
    assert again is not None
    os.close(again)


def test_two_processes_have_different_birth_marks() -> None:
    assert posix.birth_mark(os.getpid()) == posix.birth_mark(os.getpid())
    assert posix.birth_mark(2**22 - 3) is None


def test_the_first_directory_that_a_user_can_t_enter_is_found(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    (closed / "open").mkdir(parents=True)
    closed.chmod(0o700)
    assert posix.find_closed(closed / "open", "nobody") in (closed, *closed.parents), (
        "pytest's own directories may be closed, too"
    )
    assert posix.find_closed(Path("/usr/bin"), "nobody") is None
    with pytest.raises(KeyError):
        posix.find_closed(tmp_path, "nobody-of-that-name")
