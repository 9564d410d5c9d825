"""What the daemon costs before it does anything: checked in a fresh interpreter, where nobody else's imports count."""

from __future__ import annotations

import json
import subprocess
import sys

FORBIDDEN = {"airflow", "sqlalchemy", "fastapi", "pydantic", "airflow_remote_provider"}
OPTIONAL = {"rich", "click", "pygments", "markdown_it", "mdurl", "uvloop", "h2", "socksio", "zstandard", "brotli"}
"""What httpx takes along if it happens to be installed; a worker's own environment has none of it."""
OURS = {"airflow_remote_worker", "airflow_remote_protocol"}
"""How many files we divide our own code into is no cost that a budget should hold down."""
MOST_MODULES = 295
"""Of other packages. Measured: 281 (Python 3.11, httpx 0.28); and some room."""

PROBE = "import airflow_remote_worker.daemon, sys, json; print(json.dumps(sorted(sys.modules)))"


def imported() -> list[str]:
    probe = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, check=True)
    modules: list[str] = json.loads(probe.stdout)
    return modules


def test_the_daemon_imports_nothing_forbidden_and_not_much() -> None:
    modules = imported()
    assert not {module.partition(".")[0] for module in modules} & FORBIDDEN
    foreign = [module for module in modules if module.partition(".")[0] not in OPTIONAL | OURS]
    assert len(foreign) <= MOST_MODULES, f"{len(foreign)} modules; import lazily, or raise the budget with a reason"


def test_a_command_of_the_cli_does_not_import_the_network() -> None:
    probe = "import airflow_remote_worker.cli, sys; print('httpx' in sys.modules, 'asyncio' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout.split()[0] == "False"
