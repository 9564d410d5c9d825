"""The previous release: a worker that was not updated, a central that was not updated, and the previous conformance suite.

    Worker(…, program=previous.worker_program())
    Airflow(…, settings=previous.central_settings())
    previous.conformance().ALL

`requirements/previous-release` names its commit. The environment is created from it when a test needs it (scripts/environments).
"""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = ROOT / ".work/previous-sources"
PROTOCOL = "airflow_remote_protocol"
RENAMED = f"previous_{PROTOCOL}"
"""One process imports the protocols of both releases."""


def is_in_this_clone() -> bool:
    """Return whether git has the commit. A shallow clone, an unpacked archive and a computer without git don't have it."""
    if shutil.which("git") is None:
        return False
    commit = (ROOT / "requirements/previous-release").read_text().strip()
    return subprocess.run(["git", "cat-file", "-e", f"{commit}^{{commit}}"], cwd=ROOT, capture_output=True).returncode == 0


NEEDED = pytest.mark.skipif(
    not is_in_this_clone(), reason="no git, or a clone without the previous release: git fetch --unshallow"
)
"""The mark of tests that need the previous release."""


@cache
def sources() -> Path:
    """Return the directory with the release's sources.

    Raises:
        CalledProcessError: the clone lacks the commit, or its worker can't be installed; the script has printed which.
    """
    subprocess.run([ROOT / "scripts/environments", "previous"], check=True)
    return SOURCES


def worker_program() -> Path:
    """Return the release's `airflow-remote-worker`, installed from its wheels and its lock."""
    sources()
    return ROOT / ".work/previous/bin/airflow-remote-worker"


def central_settings() -> dict[str, str]:
    """Return environment variables with which Airflow's processes run the release's provider instead of this one."""
    return {"PYTHONPATH": os.pathsep.join(str(sources() / project / "src") for project in ("provider", "protocol"))}


def conformance(directory: Path) -> ModuleType:
    """Return the release's conformance suite, imported from a copy in *directory* whose package is renamed."""
    package = directory / RENAMED
    shutil.copytree(sources() / "protocol/src" / PROTOCOL, package)
    for module in package.rglob("*.py"):
        module.write_text(module.read_text().replace(PROTOCOL, RENAMED))
    sys.path.insert(0, str(directory))
    try:
        return importlib.import_module(f"{RENAMED}.conformance")
    finally:
        sys.path.remove(str(directory))
