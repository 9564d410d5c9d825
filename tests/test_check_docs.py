"""Claims of the documents: each names tests that exist."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent
SCRIPTS = ROOT / "scripts"
PAGE = "docs/explain/security.md"


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Return the script, for a repository with one test and no page yet."""
    monkeypatch.setattr(sys, "path", [str(SCRIPTS), str(ROOT / "provider" / "src"), *sys.path])  # the script adds to it, too
    spec = importlib.util.spec_from_file_location("check_docs", SCRIPTS / "check_docs.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(module, "CLAIMS", {PAGE: ("hostile/",)})
    (tmp_path / "provider/tests/hostile").mkdir(parents=True)
    (tmp_path / "provider/tests/hostile/test_paths.py").write_text("def test_a_thing() -> None: ...\n")
    (tmp_path / PAGE).parent.mkdir(parents=True)
    return module


@pytest.mark.parametrize(
    ("shown", "wrong"),
    [
        pytest.param("`hostile/test_paths.py`", [], id="file"),
        pytest.param("`hostile/test_paths.py::test_a_thing`", [], id="function"),
        pytest.param("`hostile/test_gone.py`", ["names the test hostile/test_gone.py, which does not exist"], id="no file"),
        pytest.param(
            "`hostile/test_paths.py::test_gone`",
            ["names the test hostile/test_paths.py::test_gone, which does not exist"],
            id="no function",
        ),
        pytest.param("[a page](page.md)", ["nothing shows: a worker cannot fly"], id="no test"),
    ],
)
def test_each_claim_names_a_test_that_exists(script: ModuleType, tmp_path: Path, shown: str, wrong: list[str]) -> None:
    (tmp_path / PAGE).write_text(f"| it cannot | shown by |\n|---|---|\n| a worker cannot fly | {shown} |\n")
    assert script._claims() == [f"{PAGE}: {line}" for line in wrong]
