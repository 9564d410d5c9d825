"""Releases on disk: their record, their environments, and what is wrong with them. Real interpreters run them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from airflow_remote_worker.code.interpreter import Interpreter
from airflow_remote_worker.code.runtimes import CannotMake
from airflow_remote_worker.config import Config
from airflow_remote_worker.state.directory import State, StateInUse
from airflow_remote_worker.update.record import Record, Release
from airflow_remote_worker.update.releases import Releases, running_tree

from .conftest import fetched, of_release


def test_a_release_is_started_with_its_own_packages_only(config: Config, releases: Releases) -> None:
    tree = fetched(config, of_release())
    assert "its environment" in releases.trouble_of(tree)
    releases.make(tree)
    assert releases.trouble_of(tree) == ""
    command = releases.command(tree, ["run", "--slots", "2"])
    shadow = {"PYTHONPATH": str(Path(__file__).parents[2] / "src")}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=shadow)
    assert done.stdout.split() == ["run", "--slots", "2", str(config.state / "releases" / tree / "venv")]
    assert running_tree() == ""


def test_damage_is_found_and_the_environment_is_made_again(config: Config, releases: Releases) -> None:
    tree = fetched(config, of_release())
    releases.make(tree)
    venv = config.state / "releases" / tree / "venv"
    (venv / "pyvenv.cfg").write_text("")
    assert "its environment" in releases.trouble_of(tree)
    releases.make(tree)
    assert releases.trouble_of(tree) == ""
    (config.code_path / "trees" / tree / "files" / "site-packages" / "airflow_remote_worker" / "__main__.py").unlink()
    assert "1 of its files were changed or removed" in releases.trouble_of(tree)
    assert releases.trouble_of("c" * 64) == "its files are not on this machine any more"


@pytest.mark.parametrize(
    ("about", "reason"),
    [
        (b"{", "its release.json can't be read"),
        (b'{"format": 2}', "its format is 2, and this worker knows format 1 only"),
        (b'{"format": 1, "python": "3.9"}', "it was built for Python 3.9"),
    ],
)
def test_what_is_no_release_for_this_worker_is_refused(config: Config, releases: Releases, about: bytes, reason: str) -> None:
    with pytest.raises(CannotMake, match=reason):
        releases.make(fetched(config, of_release(about)))


def test_an_interpreter_that_cannot_be_used_is_a_reason(config: Config, state: State) -> None:
    releases = Releases(config, state, Interpreter(Path("/gone"), trouble="it is gone"))
    with pytest.raises(CannotMake, match="it is gone"):
        releases.make(fetched(config, of_release()))


def test_the_record_survives_damage_of_one_copy(state: State, releases: Releases) -> None:
    assert releases.load() == Record()
    record = releases.store(Record(current=Release("0.2.0", 2, "a" * 64)))
    (state.releases / "release.json").write_bytes(b"garbled")
    assert releases.load() == record
    for path in state.releases.iterdir():
        path.write_bytes(b"garbled")
    assert releases.load() == Record()


def test_environments_of_other_releases_are_removed(config: Config, state: State, releases: Releases) -> None:
    tree = fetched(config, of_release())
    releases.make(tree)
    (state.releases / ("b" * 64) / "venv").mkdir(parents=True)
    (state.releases / ".gone-1").mkdir()
    releases.store(Record())
    releases.prune({tree})
    assert sorted(path.name for path in state.releases.iterdir()) == sorted([tree, "release.json", "release.json.copy"])


def test_only_one_process_tries_a_release(state: State, releases: Releases) -> None:
    releases.store(Record())
    with releases.locked(), pytest.raises(StateInUse, match="another worker process tries a new release"), releases.locked():
        pass
