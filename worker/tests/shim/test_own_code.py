"""Where signed code is required, only what the bundle itself defines may be called."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from airflow_remote_worker.shim.own_code import Foreign, only, require_own

DAG = "unusual_prefix_" + "0" * 40 + "_a_dag"
SOURCE = """
import os
from os import system
from subprocess import run, Popen
from functools import partial
def announce(**kwargs): pass
class Notifier: pass
shell = partial(os.system, "true")
"""


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "own_module.py").write_text(SOURCE)
    (tmp_path / "a_dag.py").write_text(SOURCE + "from own_module import announce as imported\n")
    (tmp_path / "own_package").mkdir()
    (tmp_path / "own_package" / "__init__.py").write_text("")
    (tmp_path / "own_package" / "horn.py").write_text(SOURCE)
    (tmp_path / "subprocess.py").write_text("def run(): pass")
    monkeypatch.syspath_prepend("")  # restores sys.path
    sys.path.append(str(tmp_path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


@pytest.mark.parametrize(
    "path",
    [
        "own_module.announce",
        "own_module.Notifier",
        "own_package.horn.announce",
        f"{DAG}.announce",
        f"{DAG}.Notifier",
        f"{DAG}.imported",
    ],
)
def test_what_the_bundle_defines_may_be_called(bundle: Path, path: str) -> None:
    require_own(path, "a_dag.py", str(bundle))


@pytest.mark.parametrize(
    "path",
    [
        "os.system",
        "subprocess.run",
        "builtins.exec",
        "airflow_remote_worker.cli.main",
        "own_module.system",
        "own_module.run",
        "own_module.Popen",
        "own_module.shell",
        "own_module.os",
        "own_module.gone",
        "own_package.horn.run",
        f"{DAG}.system",
        f"{DAG}.Popen",
        "gone.function",
        "function",
        "",
    ],
)
def test_nothing_else_may_be_called(bundle: Path, path: str) -> None:
    with pytest.raises(Foreign, match="only signed code"):
        require_own(path, "a_dag.py", str(bundle))


def test_a_dag_file_outside_of_the_bundle_is_not_run(bundle: Path) -> None:
    outside = bundle.parent / "outside.py"
    outside.write_text("raise SystemExit('it ran')")
    for path in ("../outside.py", str(outside)):
        with pytest.raises(Foreign):
            require_own(f"{DAG}.announce", path, str(bundle))


def test_a_refused_callback_fails_with_the_reason_in_its_log(bundle: Path) -> None:
    lines: list[str] = []

    class Log:
        error = staticmethod(lines.append)

    def execute(**arguments: Any) -> tuple[bool, str | None]:
        return True, None

    run = only(execute, str(bundle))
    call = {"callback_kwargs": {}, "dag_rel_path": "a_dag.py", "bundle_path": str(bundle), "log": Log}
    assert run(callback_path="own_module.announce", **call) == (True, None)
    refused = run(callback_path="os.system", **call)
    assert refused[0] is False
    assert lines == [refused[1]]
    assert "wrap it in a function of the bundle" in lines[0]
