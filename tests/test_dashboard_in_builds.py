"""Tests provider/hatch_build.py: every wheel and sdist has the dashboard, or the build reports in one line what is missing."""

from __future__ import annotations

import importlib.util
import os
import subprocess
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

HOOK = Path(__file__).parent.parent / "provider/hatch_build.py"


@pytest.fixture
def hook() -> ModuleType:
    pytest.importorskip("hatchling")
    spec = importlib.util.spec_from_file_location("hatch_build", HOOK)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Make a checkout whose dashboard was never built; return the provider's directory in it."""
    for name in ("package.json", "package-lock.json", "vite.config.ts", "tsconfig.json", "src/main.tsx"):
        path = tmp_path / "ui" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
    (tmp_path / "provider").mkdir()
    return tmp_path / "provider"


class Npm:
    """A stand-in for node and npm; `npm run build` creates the expected file, unless *fails* names the command."""

    def __init__(self, hook: ModuleType, root: Path, *, node: str = "v22.12.0", fails: str = "") -> None:
        self.calls: list[str] = []
        self._built, self._node, self._fails = root / hook.BUILT, node, fails

    def __call__(self, command: list[str], **how: Any) -> subprocess.CompletedProcess[str]:
        if command[1] == "--version":
            return subprocess.CompletedProcess(command, 0, self._node + "\n", "")
        self.calls.append(command[1])
        if self._fails == command[1]:
            return subprocess.CompletedProcess(command, 1, "", "first line\nno such package\n")
        if command[1] == "run":
            self._built.parent.mkdir(parents=True, exist_ok=True)
            self._built.write_text("built")
        return subprocess.CompletedProcess(command, 0, "", "")


@pytest.fixture(autouse=True)
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Set a PATH with programs named node and npm, which are found but never run; return the directory."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("node", "npm"):
        (folder / name).write_text("#!/bin/false\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
    return folder


def test_the_dashboard_is_built_once_and_again_when_a_source_is_newer(hook: ModuleType, checkout: Path) -> None:
    npm = Npm(hook, checkout)
    hook.make_dashboard(checkout, npm)
    assert npm.calls == ["ci", "run"]
    hook.make_dashboard(checkout, npm)
    assert npm.calls == ["ci", "run"]
    newer = (checkout / hook.BUILT).stat().st_mtime + 10
    os.utime(checkout.parent / "ui/src/main.tsx", (newer, newer))
    hook.make_dashboard(checkout, npm)
    assert npm.calls == ["ci", "run"] * 2


def test_packages_that_are_there_are_not_fetched_again(hook: ModuleType, checkout: Path) -> None:
    installed = checkout.parent / "ui/node_modules/.package-lock.json"
    installed.parent.mkdir()
    installed.write_text("{}")
    npm = Npm(hook, checkout)
    hook.make_dashboard(checkout, npm)
    assert npm.calls == ["run"]


def test_an_sdist_has_the_file_and_needs_no_node(hook: ModuleType, tmp_path: Path, programs: Path) -> None:
    for program in programs.iterdir():
        program.unlink()
    built = tmp_path / "sdist" / hook.BUILT
    built.parent.mkdir(parents=True)
    built.write_text("built")
    hook.make_dashboard(tmp_path / "sdist")


def test_without_sources_and_file_the_build_reports_where_to_build(hook: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(hook.CannotBuild, match=r"ui/ to build it from is not beside .*AIRFLOW_REMOTE_DASHBOARD=none"):
        hook.make_dashboard(tmp_path / "alone")


@pytest.mark.parametrize("missing", ["npm", "node"])
def test_a_missing_program_is_named_in_one_line_with_the_remedies(
    hook: ModuleType, checkout: Path, programs: Path, missing: str
) -> None:
    (programs / missing).unlink()
    with pytest.raises(hook.CannotBuild) as caught:
        hook.make_dashboard(checkout, Npm(hook, checkout))
    message = str(caught.value)
    assert f"{missing} is missing; install Node.js" in message
    assert "AIRFLOW_REMOTE_DASHBOARD=none" in message
    assert len(message.splitlines()) == 1


@pytest.mark.parametrize(("node", "is_enough"), [("v18.20.0", False), ("v20.19.0", True), ("v21.7.0", False), ("v22.12.1", True)])
def test_an_unsupported_version_of_node_is_named(hook: ModuleType, checkout: Path, node: str, is_enough: bool) -> None:
    npm = Npm(hook, checkout, node=node)
    if is_enough:
        hook.make_dashboard(checkout, npm)
        return
    with pytest.raises(hook.CannotBuild, match=rf"Node.js {node} is too old"):
        hook.make_dashboard(checkout, npm)
    assert npm.calls == []


def test_the_output_of_npm_is_part_of_the_one_line(hook: ModuleType, checkout: Path) -> None:
    with pytest.raises(hook.CannotBuild) as caught:
        hook.make_dashboard(checkout, Npm(hook, checkout, fails="ci"))
    assert "`npm ci" in str(caught.value)
    assert "first line | no such package" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
