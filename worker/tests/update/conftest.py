"""What tests of releases share: releases on disk, with a program of the test's own."""

from __future__ import annotations

import pytest
from airflow_remote_worker.code.interpreter import find_own
from airflow_remote_worker.code.trees import TreeStore
from airflow_remote_worker.config import Config
from airflow_remote_worker.state.directory import State
from airflow_remote_worker.update.record import Release
from airflow_remote_worker.update.releases import Releases

from ..code.conftest import blobs_of, tree_of

ABOUT = b'{"format": 1, "version": "0.2.0"}'
PROGRAM = "import sys\nprint(*sys.argv[1:], sys.prefix)\n"


@pytest.fixture
def config(state: State) -> Config:
    return Config(state=state.root)


@pytest.fixture
def releases(config: Config, state: State) -> Releases:
    return Releases(config, state, find_own())


def of_release(about: bytes = ABOUT, program: str = PROGRAM) -> dict[str, bytes]:
    """Return the files of a release, whose program is *program*."""
    return {
        "release.json": about,
        "site-packages/airflow_remote_worker/__init__.py": b"",
        "site-packages/airflow_remote_worker/__main__.py": program.encode(),
    }


def fetched(config: Config, files: dict[str, bytes]) -> str:
    """Put a tree on this machine, as a fetch does; return its digest."""
    store = TreeStore(config.code_path / "trees")
    store.prepare()
    tree = tree_of(files)
    new = store.make(tree, "release:worker", "1")
    new.add(blobs_of(files))
    new.complete()
    return tree.digest


def installed(config: Config, releases: Releases, serial: int, program: str = PROGRAM) -> Release:
    """Install a release, whose program is *program*."""
    tree = fetched(config, of_release(program=f"{program}\n# {serial}\n"))
    releases.make(tree)
    return Release(f"0.{serial}.0", serial, tree)
