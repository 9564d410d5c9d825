from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from airflow_remote_provider.packing.archives.release import make_worker
from airflow_remote_provider.packing.runtimes.errors import CannotBuild
from airflow_remote_provider.packing.runtimes.targets import parse

from ..runtimes.conftest import Index

HERE, THERE = parse("cp311-linux-gnu-x86_64"), parse("cp312-linux-musl-aarch64")


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    found = Index(tmp_path / "index", tmp_path / "cache")
    found.directory.mkdir()
    found.add("airflow-remote-protocol", "9.0", {"airflow_remote_protocol/__init__.py": ""})
    found.add(
        "airflow-remote-worker", "9.0", {"airflow_remote_worker/__init__.py": ""}, requires=["airflow-remote-protocol", "native"]
    )
    for tag in ("cp311-cp311-manylinux_2_17_x86_64", "cp312-cp312-musllinux_1_2_aarch64"):
        found.add("native", "1.0", {"native/__init__.py": f"tag = {tag!r}\n"}, tag=tag)
    yield found


def test_it_has_the_packages_of_its_platform(index: Index, tmp_path: Path) -> None:
    trees = {}
    for platform in (HERE, THERE):
        work = tmp_path / str(platform)
        trees[platform], read = make_worker(platform, "9.0", work, environ=index.environ)
        entry = trees[platform].get("site-packages/native/__init__.py")
        about = trees[platform].get("release.json")
        assert entry is not None and about is not None
        assert platform.processor in read(entry.sha256).decode()
        assert json.loads(read(about.sha256)) == {"format": 1, "python": platform.python, "version": "9.0"}
    assert trees[HERE].digest != trees[THERE].digest


def test_the_same_packages_are_always_the_same_tree(index: Index, tmp_path: Path) -> None:
    digests = {make_worker(HERE, "9.0", tmp_path / name, environ=index.environ)[0].digest for name in ("one", "two")}
    assert len(digests) == 1


def test_wheels_of_a_directory_are_used_beside_the_index(index: Index, tmp_path: Path) -> None:
    beside = Index(tmp_path / "beside", tmp_path / "cache")
    beside.directory.mkdir()
    for name in ("airflow_remote_worker", "airflow_remote_protocol"):
        (wheel,) = index.directory.glob(f"{name}-*.whl")
        wheel.rename(beside.directory / wheel.name)
    with pytest.raises(CannotBuild, match="airflow-remote"):
        make_worker(HERE, "9.0", tmp_path / "without", environ=index.environ)
    tree, _ = make_worker(HERE, "9.0", tmp_path / "with", wheels=beside.directory, environ=index.environ)
    assert tree.get("site-packages/airflow_remote_worker/__init__.py")


def test_a_directory_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(CannotBuild, match=r"--wheels: .* can't be read"):
        make_worker(HERE, "9.0", tmp_path / "work", wheels=tmp_path / "missing")


def test_a_platform_without_a_wheel_is_refused_with_the_name(index: Index, tmp_path: Path) -> None:
    with pytest.raises(CannotBuild, match="native"):
        make_worker(parse("cp313-linux-gnu-x86_64"), "9.0", tmp_path / "work", environ=index.environ)
