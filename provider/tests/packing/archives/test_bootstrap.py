"""The bootstrap in an archive of a small worker, run as a user runs it."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable, Mapping
from importlib.resources import files
from pathlib import Path

import pytest
from airflow_remote_protocol.trees import Entry, Tree
from airflow_remote_provider.packing.archives.archive import Archive
from airflow_remote_provider.packing.runtimes.targets import own_platform

CLI = """import json, sys
def main():
    print(json.dumps([sys.argv[1:], sys.prefix, sys.executable, __file__]))
    return 7
"""
Run = Callable[..., "subprocess.CompletedProcess[str]"]


def write(path: Path, platform: str = "", content: Mapping[str, str] | None = None) -> Path:
    contents = {"airflow_remote_worker/__init__.py": "", "airflow_remote_worker/cli.py": CLI} if content is None else content
    blobs = {hashlib.sha256(text.encode()).hexdigest(): text.encode() for text in contents.values()}
    entries = [
        Entry(f"site-packages/{name}", hashlib.sha256(text.encode()).hexdigest(), len(text)) for name, text in contents.items()
    ]
    tree = Tree.of(entries)
    with Archive(path) as archive:
        archive.describe("1.0", {platform or str(own_platform()): tree})
        archive.add_tree(tree, blobs.__getitem__)
    return path


@pytest.fixture
def run(tmp_path: Path) -> Run:
    def run(path: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        environ = {"HOME": str(tmp_path / "home"), "PATH": os.environ["PATH"], **variables}
        return subprocess.run([sys.executable, path, *words], env=environ, capture_output=True, text=True, timeout=60)

    return run


def test_it_unpacks_once_and_executes_the_worker_in_an_environment_of_its_own(run: Run, tmp_path: Path) -> None:
    path = write(tmp_path / "worker.pyz")
    done = run(path, "run", "--state", "x")
    assert done.returncode == 7, done.stderr
    words, prefix, python, module = json.loads(done.stdout)
    assert words == ["run", "--state", "x"]
    assert Path(prefix).parent == tmp_path / "home/.cache/airflow-remote-worker"
    assert python == f"{prefix}/bin/python" and module.startswith(prefix)
    (Path(prefix) / "mark").touch()
    assert json.loads(run(path).stdout)[1] == prefix
    assert (Path(prefix) / "mark").exists()


def test_install_gets_the_path_of_the_file(run: Run, tmp_path: Path) -> None:
    path = write(tmp_path / "worker.pyz")
    assert json.loads(run(path, "install", "--no-service").stdout)[0] == ["install", "--archive", str(path), "--no-service"]


def test_what_was_unpacked_can_be_moved(run: Run, tmp_path: Path) -> None:
    _, prefix, *_ = json.loads(run(write(tmp_path / "worker.pyz")).stdout)
    moved = Path(prefix).rename(tmp_path / "moved")
    done = subprocess.run(
        [moved / "bin/airflow-remote-worker"], env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True, timeout=60
    )
    assert json.loads(done.stdout)[1] == str(moved)


def test_a_file_for_another_platform_names_those_that_it_is_for(run: Run, tmp_path: Path) -> None:
    done = run(write(tmp_path / "worker.pyz", "cp312-linux-musl-aarch64"))
    assert done.returncode == 1
    assert "only for cp312-linux-musl-aarch64" in done.stderr and "Traceback" not in done.stderr


def test_a_damaged_file_is_never_executed(run: Run, tmp_path: Path) -> None:
    path = write(tmp_path / "worker.pyz")
    with zipfile.ZipFile(path) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    damaged = {name: content + b"#" if name.startswith("blobs/") else content for name, content in contents.items()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in damaged.items():
            archive.writestr(name, content)
    done = run(path)
    assert done.returncode == 1
    assert "is damaged (airflow_remote_worker/" in done.stderr.replace("site-packages/", "")
    assert not [left for left in (tmp_path / "home/.cache/airflow-remote-worker").iterdir()]


def test_a_place_that_cannot_be_written_names_the_variable(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = run(write(tmp_path / "worker.pyz"), AIRFLOW_REMOTE_WORKER_CACHE=str(tmp_path / "file" / "below"))
    assert done.returncode == 1
    assert "AIRFLOW_REMOTE_WORKER_CACHE" in done.stderr and "Traceback" not in done.stderr


def test_an_old_interpreter_can_read_it() -> None:
    source = files("airflow_remote_provider.packing.archives").joinpath("bootstrap.py").read_text(encoding="utf-8")
    ast.parse(source, feature_version=(3, 6))
    assert "from __future__" not in source  # annotations came with 3.7
