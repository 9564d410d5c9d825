"""What of central's is on this machine, and what of it may go."""

from __future__ import annotations

import pytest
from airflow_remote_worker import cli
from airflow_remote_worker.code.interpreter import find_own
from airflow_remote_worker.code.trees import TreeStore
from airflow_remote_worker.config import Config
from airflow_remote_worker.lifecycle import EXIT_FAILED, EXIT_OK
from airflow_remote_worker.local import job_files
from airflow_remote_worker.state import files
from airflow_remote_worker.state.directory import State
from airflow_remote_worker.update.held_code import list_code, prune
from airflow_remote_worker.update.record import Record, Release
from airflow_remote_worker.update.releases import Releases

from ..code.conftest import blobs_of, tree_of


def put(config: Config, name: str, content: str) -> str:
    store = TreeStore(config.code_path / "trees")
    store.prepare()
    given = {"a.py": content.encode()}
    tree = tree_of(given)
    new = store.make(tree, name, "1")
    new.add(blobs_of(given))
    new.complete()
    return tree.digest


def host_with(tree: str, state: State) -> None:
    spec = job_files.HostSpec("host-1", "key", "", "w1", "etl", "", tree=tree)
    (state.hosts / "host-1").mkdir()
    files.store(state.hosts / "host-1" / job_files.HOST_SPEC, spec)


def test_what_is_used_and_the_newest_of_each_name_stay(state: State, capsys: pytest.CaptureFixture[str]) -> None:
    config = Config(state=state.root)
    used, old, new = (put(config, "etl", text) for text in ("used", "old", "new"))
    release, newer = put(config, "release:worker", "1"), put(config, "release:worker", "2")
    Releases(config, state, find_own()).store(Record(current=Release("0.2.0", 1, release)))
    host_with(used, state)
    needed = {line.tree.digest: line.needed for line in list_code(config, state)}
    assert needed == {
        used: "in use",
        old: "",
        new: "newest of its name",
        release: "release of the worker",
        newer: "newest of its name",
    }
    assert cli.main(["code", "list", "--state", str(state.root)]) == EXIT_OK
    assert "trees: 5" in capsys.readouterr().out
    with state.locked():
        assert cli.main(["code", "prune", "--state", str(state.root)]) == EXIT_FAILED
    assert cli.main(["code", "prune", "--state", str(state.root)]) == EXIT_OK
    assert f"{old[:12]}" in capsys.readouterr().out
    assert {line.tree.digest for line in list_code(config, state)} == {used, new, release, newer}
    assert prune(config, state) == []
