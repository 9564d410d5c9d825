from __future__ import annotations

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
