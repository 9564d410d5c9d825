"""Copies of the worker in the state directory: made, changed, and removed when no process runs from them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from airflow_remote_worker.system import unpacked


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    """Return an environment as `worker.pyz` unpacks it."""
    made = tmp_path / "cache" / "0123-45"
    (made / "bin").mkdir(parents=True)
    (made / "bin/airflow-remote-worker").write_text("the program")
    (made / "bin/python").symlink_to("/usr/bin/python3")
    (made / "lib/__pycache__").mkdir(parents=True)
    (made / unpacked.MARK).write_text("{}")
    return made


@pytest.fixture
def state(tmp_path: Path) -> Path:
    made = tmp_path / "state"
    made.mkdir()
    return made


def test_only_an_environment_from_one_file_is_unpacked(prefix: Path, tmp_path: Path) -> None:
    assert unpacked.is_unpacked(prefix)
    assert not unpacked.is_unpacked(tmp_path)
    assert not unpacked.is_unpacked()


def test_a_copy_in_the_state_directory_works_without_the_cache(prefix: Path, state: Path) -> None:
    program = unpacked.keep(state, prefix)
    assert program == unpacked.program_in(state) and program.read_text() == "the program"
    assert (state / "installed/current").readlink() == Path(prefix.name)
    assert (program.parent / "python").is_symlink()
    assert not list((state / "installed").rglob("__pycache__"))
    assert unpacked.is_unpacked(program.parent.parent)


def test_a_newer_file_changes_the_link_and_keeps_the_older_copy(prefix: Path, state: Path) -> None:
    unpacked.keep(state, prefix)
    newer = prefix.with_name("6789-45")
    prefix.rename(newer)
    (newer / "bin/airflow-remote-worker").write_text("the newer program")
    assert unpacked.keep(state, newer).read_text() == "the newer program"
    assert (state / "installed" / prefix.name).is_dir()


def test_it_can_be_repeated_also_from_the_copy_itself(prefix: Path, state: Path) -> None:
    program = unpacked.keep(state, prefix)
    unpacked.keep(state, prefix)
    assert unpacked.keep(state, state / "installed/current") == program
    assert program.read_text() == "the program"
    assert sorted(path.name for path in (state / "installed").iterdir()) == [prefix.name, "current"]


def make_copies(state: Path, prefix: Path, *names: str) -> Path:
    """Keep environments with these names, the oldest first; return the directory of the copies."""
    for at, name in enumerate(names):
        prefix = prefix.rename(prefix.with_name(name))
        unpacked.keep(state, prefix)
        os.utime(state / "installed" / name, (at, at))
    return state / "installed"


def test_earlier_copies_are_removed(prefix: Path, state: Path) -> None:
    root = make_copies(state, prefix, "first", "second", "third")
    assert {path.name for path in unpacked.prune(state)} == {"first", "second"}
    assert sorted(path.name for path in root.iterdir()) == ["current", "third"]
    assert unpacked.prune(state) == []


def test_a_newer_copy_stays_before_it_is_the_current_one(prefix: Path, state: Path) -> None:
    root = make_copies(state, prefix, "first", "second", "third")
    (root / "current").unlink()
    (root / "current").symlink_to("second")
    assert [path.name for path in unpacked.prune(state)] == ["first"]
    assert (root / "third").is_dir()


def test_a_copy_stays_while_a_process_runs_from_it(prefix: Path, state: Path) -> None:
    (prefix / "shim.py").write_text("import sys; print(flush=True); sys.stdin.read()")
    shim = make_copies(state, prefix, "first", "second") / "first" / "shim.py"
    process = subprocess.Popen([sys.executable, shim], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with process:
        assert process.stdout is not None and process.stdout.readline()
        assert unpacked.prune(state) == []
    assert [path.name for path in unpacked.prune(state)] == ["first"]


def test_what_an_interrupted_removal_left_goes_too(prefix: Path, state: Path) -> None:
    root = make_copies(state, prefix, "first")
    (root / f"{unpacked.GONE}0123" / "lib").mkdir(parents=True)
    assert unpacked.prune(state) == []
    assert sorted(path.name for path in root.iterdir()) == ["current", "first"]


def test_a_worker_that_was_installed_otherwise_has_no_copies(state: Path) -> None:
    assert unpacked.prune(state) == []
