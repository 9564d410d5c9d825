"""Finding a job's code on this machine, and comparing it with the code that central parsed."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

import pytest
from airflow_remote_worker.code import local
from airflow_remote_worker.code.local import CodeMissing, LocalCode
from airflow_remote_worker.config import BundleConfig, Config


def _find(bundle: Path, dag_rel_path: str, code_hash: str = "") -> LocalCode:
    config = Config(state=bundle, bundles={"b": BundleConfig(path=bundle)})
    return local.find("b", dag_rel_path=dag_rel_path, code_hash=code_hash, config=config, worker_name="w")


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    (tmp_path / "a_dag.py").write_text("")
    with zipfile.ZipFile(tmp_path / "packed.zip", "w") as archive:
        archive.writestr("dag.py", "")
    (tmp_path / "broken.zip").write_bytes(b"no zip")
    return tmp_path


@pytest.mark.parametrize("dag_rel_path", ["a_dag.py", "packed.zip/dag.py", "packed.zip"])
def test_a_dag_file_is_found_in_a_zip_archive_too(bundle: Path, dag_rel_path: str) -> None:
    assert _find(bundle, dag_rel_path) == LocalCode(str(bundle))


def test_an_unknown_bundle_is_refused_with_the_known_ones(bundle: Path) -> None:
    config = Config(state=bundle, bundles={"b": BundleConfig(path=bundle)})
    with pytest.raises(CodeMissing, match=r"has no bundle 'c' \(it has: b\).*airflow remote publish c.*set bundles\.c\.path"):
        local.find("c", dag_rel_path="a_dag.py", code_hash="", config=config, worker_name="w")


@pytest.mark.parametrize("dag_rel_path", ["gone.py", "packed.zip/gone.py", "gone.zip/dag.py", "broken.zip/dag.py"])
def test_a_missing_directory_or_file_is_named(bundle: Path, dag_rel_path: str) -> None:
    with pytest.raises(CodeMissing, match=f"{dag_rel_path} does not exist on worker w"):
        _find(bundle, dag_rel_path)


def _md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


@pytest.mark.parametrize("dag_rel_path", ["a_dag.py", "packed.zip/dag.py"])
def test_an_unchanged_file_has_no_note(bundle: Path, dag_rel_path: str) -> None:
    assert _find(bundle, dag_rel_path, _md5("")).note == ""


@pytest.mark.parametrize("dag_rel_path", ["a_dag.py", "packed.zip/dag.py"])
def test_a_different_file_is_named_with_worker_and_both_versions(bundle: Path, dag_rel_path: str) -> None:
    code = _find(bundle, dag_rel_path, _md5("newer"))
    assert code.differs_as == _md5("")
    assert f"The Dag file {dag_rel_path} of bundle 'b' on worker w (version {_md5('')[:8]})" in code.note
    assert f"central parsed (version {_md5('newer')[:8]})" in code.note


def test_other_line_endings_are_the_same_version(tmp_path: Path) -> None:
    (tmp_path / "dag.py").write_bytes("a = 'ä'\r\nb = 2\r".encode())
    assert local.hash_of(tmp_path / "dag.py") == _md5("a = 'ä'\nb = 2\n")


@pytest.mark.parametrize("content", [b"\xff\xfe", b"x" * 100])
def test_a_file_that_is_not_text_or_too_long_is_not_compared(
    tmp_path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "LONGEST_FILE", 99)
    (tmp_path / "dag.py").write_bytes(content)
    assert local.hash_of(tmp_path / "dag.py") == ""


def test_a_damaged_member_of_an_archive_is_not_compared(tmp_path: Path) -> None:
    packed = tmp_path / "packed.zip"
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("dag.py", "x = 1\n" * 2000)
    content = bytearray(packed.read_bytes())
    for at in range(40, 60):
        content[at] ^= 0xFF
    packed.write_bytes(content)
    assert local.hash_of(packed / "dag.py") == ""
