"""Topic suite: Airflow's own `GitDagBundle` as the publisher uses it: versions are commits, and what is gone is said."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from airflow_remote_provider import compat
from airflow_remote_provider.compat import BundleSource, BundleUnavailable, VersionGone
from sqlalchemy import Engine

from testkit.bundles import GIT, configure_bundles
from testkit.repository import Repository


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "repository")


@pytest.fixture
def source(tmp_path: Path, repository: Repository, database: Engine) -> Iterator[BundleSource]:
    options = {"repo_url": repository.url, "tracking_ref": "main"}
    with configure_bundles(tmp_path / "storage", dags=(GIT, options)):
        yield compat.bundle_sources()["dags"]


def files_of(path: Path) -> set[str]:
    return {file.name for file in path.iterdir() if file.name != ".git"}


def test_the_newest_commit_and_an_older_one(source: BundleSource, repository: Repository) -> None:
    first = repository.commit(dag="1", helper="1")
    with source.newest() as checkout:
        assert (checkout.version, files_of(checkout.path)) == (first, {"dag.py", "helper.py"})
    second = repository.commit(dag="2", helper=None)
    with source.newest() as checkout:
        assert (checkout.version, files_of(checkout.path)) == (second, {"dag.py"})
    with source.at(first) as checkout:
        assert (checkout.version, files_of(checkout.path)) == (first, {"dag.py", "helper.py"})
        assert (checkout.path / "dag.py").read_text() == "1"
    assert source.is_versioned
    assert not source.is_local


def test_a_commit_that_is_not_in_the_repository(source: BundleSource, repository: Repository) -> None:
    repository.commit(dag="1")
    gone = "a" * 40
    with pytest.raises(VersionGone, match=f"Version {gone} not found in the repository"), source.at(gone):
        pass


def test_a_repository_that_is_away_is_another_failure(source: BundleSource, repository: Repository, tmp_path: Path) -> None:
    """A version of it may still be there: its jobs go on waiting."""
    commit = repository.commit(dag="1")
    shutil.rmtree(tmp_path / "repository/origin.git")
    with pytest.raises(BundleUnavailable) as failure, source.at(commit):
        pass
    assert not isinstance(failure.value, VersionGone)
    assert "Error cloning repository" in str(failure.value)
