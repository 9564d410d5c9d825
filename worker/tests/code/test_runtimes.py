"""Environments of runtimes: made, found again, refused, removed. Real interpreters run them."""

from __future__ import annotations

import errno
import subprocess
from pathlib import Path

import pytest
from airflow_remote_worker.code.interpreter import Interpreter, find
from airflow_remote_worker.code.runtimes import CannotMake, Environments, environment_of
from airflow_remote_worker.code.venvs import console_scripts
from airflow_remote_worker.config import Config
from airflow_remote_worker.state import files

DIGEST = "a" * 64


@pytest.fixture
def base() -> Interpreter:
    return find(Config(state=Path("state")))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    tree = tmp_path / "tree with 'a quote' and ünicode"
    packages = tree / "site-packages"
    (packages / "a-1.dist-info").mkdir(parents=True)
    (packages / "a.py").write_text("class Main:\n    @staticmethod\n    def run():\n        print('ran')\n        return 3\n")
    (packages / "more.pth").write_text("extra\n")
    (packages / "extra").mkdir()
    (packages / "extra" / "of_a_pth.py").write_text("")
    entries = "[console_scripts]\na-program = a:Main.run\n../evil = a:Main.run\nbad = a:b;c\n[other]\nx = a:b\n"
    (packages / "a-1.dist-info" / "entry_points.txt").write_text(entries)
    (tree / "runtime.json").write_text('{"format": 1, "env": {"A": "central", "B": "central"}, "name": "default"}')
    return tree


@pytest.fixture
def environments(tmp_path: Path, base: Interpreter) -> Environments:
    made = Environments(tmp_path / "runtimes", base, boot="one")
    made.prepare()
    return made


def test_an_environment_has_the_packages_of_the_tree_and_no_others(environments: Environments, tree: Path) -> None:
    environments.make(DIGEST, tree)
    code = "import a, of_a_pth, sys; print(a.__file__); print(sys.prefix != sys.base_prefix); import msgspec"
    done = subprocess.run([environments.python_of(DIGEST), "-I", "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == [str(tree / "site-packages" / "a.py"), "True"]
    assert "No module named 'msgspec'" in done.stderr


def test_its_programs_start_in_it_and_unsafe_names_are_left_out(environments: Environments, tree: Path) -> None:
    environments.make(DIGEST, tree)
    program = environments.python_of(DIGEST).parent / "a-program"
    done = subprocess.run([program], capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("ran\n", 3)
    assert [name for name, _, _ in console_scripts(tree / "site-packages")] == ["a-program"]


def test_it_is_found_again_in_the_same_boot_with_the_same_interpreter_only(
    environments: Environments, tree: Path, tmp_path: Path, base: Interpreter
) -> None:
    made = environments.make(DIGEST, tree)
    root = tmp_path / "runtimes"
    assert Environments(root, base, boot="one").ready(DIGEST) == made
    assert Environments(root, base, boot="two").ready(DIGEST) is None
    moved = root.rename(tmp_path / "moved")
    assert Environments(moved, base, boot="one").ready(DIGEST) is None
    moved.rename(root)
    assert Environments(root, Interpreter(Path("/other"), base.platform, base.minor), boot="one").ready(DIGEST) is None


def test_what_an_interrupted_daemon_has_left_is_removed(environments: Environments, tree: Path, tmp_path: Path) -> None:
    environments.make(DIGEST, tree)
    for name in ("b" * 64, ".gone-1", "other"):
        (tmp_path / "runtimes" / name / "venv").mkdir(parents=True)
    environments.prepare()
    assert [path.name for path in (tmp_path / "runtimes").iterdir()] == [DIGEST]
    environments.prune([])
    assert list((tmp_path / "runtimes").iterdir()) == []


def test_a_full_disk_leaves_nothing_behind(
    environments: Environments, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object, **more: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files, "store", full)
    with pytest.raises(OSError, match="No space left"):
        environments.make(DIGEST, tree)
    assert list((tmp_path / "runtimes").iterdir()) == []


def test_bytecode_is_made_once_and_a_stop_ends_it(environments: Environments, tree: Path) -> None:
    environments.make(DIGEST, tree)
    assert not environments.compile(DIGEST, tree, stop=lambda: True)
    assert environments.compile(DIGEST, tree)
    assert list((tree / "site-packages" / "__pycache__").glob("a.*.pyc"))
    ready = environments.ready(DIGEST)
    assert ready is not None
    assert ready.compiled


def test_a_passed_canary_is_remembered_until_one_fails(environments: Environments, tree: Path) -> None:
    environments.make(DIGEST, tree)
    environments.note_passed(DIGEST, airflow="3.3.2", task_sdk="1.3.2", version="3.11.7")
    ready = environments.ready(DIGEST)
    assert ready is not None
    assert (ready.passed, ready.airflow, ready.task_sdk, ready.version) == (True, "3.3.2", "1.3.2", "3.11.7")
    environments.note_failed(DIGEST)
    ready = environments.ready(DIGEST)
    assert ready is not None
    assert not ready.passed


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "its runtime.json can't be read"),
        ('{"format": 2}', "knows format 1 only; update the worker"),
        ('{"format": 1, "python": "3.9"}', "it was built for Python 3.9"),
    ],
)
def test_what_is_no_runtime_for_this_worker_is_refused(environments: Environments, tree: Path, content: str, reason: str) -> None:
    (tree / "runtime.json").write_text(content)
    with pytest.raises(CannotMake, match=reason):
        environments.make(DIGEST, tree)


def test_the_site_s_variables_win_over_the_runtime_s(tree: Path) -> None:
    assert environment_of(tree, {"B": "site"}) == {"A": "central", "B": "site"}
    (tree / "plugins").mkdir()
    (tree / "config").mkdir()
    found = environment_of(tree, {"PYTHONPATH": "/own"})
    assert found["AIRFLOW__CORE__PLUGINS_FOLDER"] == str(tree / "plugins")
    assert found["PYTHONPATH"] == f"/own:{tree / 'config'}"
