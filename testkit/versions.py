"""The version of Airflow that this process runs with: environments of a version other than the default are named after it."""

from __future__ import annotations

import sys
from pathlib import Path

WORK = Path(__file__).parent.parent / ".work"


def _of_environment(name: str) -> str:
    return name.partition("-")[2] if name.startswith("central-") else ""


AIRFLOW = _of_environment(Path(sys.prefix).name)
"""`3.4` where these tests run in `.work/central-3.4`; empty in `.work/central`, which has the default version."""


def central_of(version: str = "") -> Path:
    """Return the `bin` directory of central's environment with this version of Airflow (empty: the default version)."""
    return WORK / (f"central-{version}" if version else "central") / "bin"


def runtime_of(version: str = "") -> Path:
    """Return the interpreter of the task runtime with this version of Airflow (empty: the default version)."""
    return WORK / (f"runtime-{version}" if version else "runtime") / "bin/python"
