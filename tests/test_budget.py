"""Topic suite: the modules that the daemon and the CLI import, checked in a fresh interpreter."""

from __future__ import annotations

import json
import subprocess
import sys

FORBIDDEN = {"airflow", "sqlalchemy", "fastapi", "pydantic", "airflow_remote_provider"}
OPTIONAL = {"rich", "click", "pygments", "markdown_it", "mdurl", "uvloop", "h2", "socksio", "zstandard", "brotli"}
"""Packages that httpx imports if they are installed; a worker's own environment does not contain them."""
MOST_MODULES = 360
"""Measured: 346 (Python 3.11, httpx 0.28), 12 of them for triggers; the rest is reserve."""

PROBE = "import airflow_remote_worker.daemon, sys, json; print(json.dumps(sorted(sys.modules)))"


def imported_modules() -> list[str]:
    probe = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, check=True)
    modules: list[str] = json.loads(probe.stdout)
    return modules


def test_the_daemon_imports_no_forbidden_module_and_stays_in_its_budget() -> None:
    modules = imported_modules()
    assert not {module.partition(".")[0] for module in modules} & FORBIDDEN
    own = [module for module in modules if module.partition(".")[0] not in OPTIONAL]
    assert len(own) <= MOST_MODULES, f"{len(own)} modules; import lazily, or raise the budget with a reason"


def test_a_command_of_the_cli_does_not_import_the_network() -> None:
    probe = "import airflow_remote_worker.cli, sys; print('httpx' in sys.modules, 'asyncio' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout.split()[0] == "False"
