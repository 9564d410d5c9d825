from __future__ import annotations

import hashlib
import json
import zipfile
from pathlib import Path

import pytest
from airflow_remote_protocol.trees import Entry, Tree
from airflow_remote_provider.packing.archives.archive import SHEBANG, Archive

BLOBS = {hashlib.sha256(content).hexdigest(): content for content in (b"shared", b"one", b"two")}
SHARED, ONE, TWO = BLOBS
TREES = {
    "cp311-linux-gnu-x86_64": Tree.of([Entry("a", SHARED, 6), Entry("b", ONE, 3)]),
    "cp312-linux-gnu-x86_64": Tree.of([Entry("a", SHARED, 6), Entry("b", TWO, 3)]),
}


def write(path: Path, *, is_secret: bool = False) -> Path:
    with Archive(path, is_secret=is_secret) as archive:
        archive.describe("1.0", TREES)
        for tree in TREES.values():
            archive.add_tree(tree, BLOBS.__getitem__)
    return path


def test_a_file_of_two_platforms_is_stored_once(tmp_path: Path) -> None:
    path = write(tmp_path / "file")
    assert path.read_bytes().startswith(SHEBANG)
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        assert len(names) == len(set(names)) == 2 + len(TREES) + len(BLOBS)
        assert json.loads(archive.read("archive.json"))["platforms"] == {name: tree.digest for name, tree in TREES.items()}
        assert archive.read(f"blobs/{SHARED}") == b"shared"


def test_the_same_trees_make_the_same_bytes(tmp_path: Path) -> None:
    assert write(tmp_path / "one").read_bytes() == write(tmp_path / "two").read_bytes()


def test_only_its_owner_reads_a_secret_one(tmp_path: Path) -> None:
    assert write(tmp_path / "open").stat().st_mode & 0o777 == 0o755
    assert write(tmp_path / "secret", is_secret=True).stat().st_mode & 0o777 == 0o600


def test_an_error_leaves_no_file_and_keeps_the_one_before(tmp_path: Path) -> None:
    path = write(tmp_path / "file")
    before = path.read_bytes()
    with pytest.raises(KeyError), Archive(path) as archive:
        archive.add_tree(next(iter(TREES.values())), {}.__getitem__)
    assert path.read_bytes() == before and [left.name for left in tmp_path.iterdir()] == ["file"]
