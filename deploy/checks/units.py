"""The systemd unit that `service install` writes: how much systemd finds that its tasks could do."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import Any

from airflow_remote_worker.system.service_unit import Unit

from deploy.checks.running import CheckFailed, run

MOST = 4.0
"""The largest exposure of the default unit; without hardening it is 9.2."""


def check() -> dict[str, Any]:
    """Let systemd-analyze rate the default unit."""
    unit = Unit(
        ("/opt/airflow-remote-worker/bin/airflow-remote-worker",), Path("/var/lib/airflow-remote-worker"), user="airflow-worker"
    )
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, f"{unit.name}.service")
        path.write_text(unit.render())
        rated = run("systemd-analyze", "security", "--offline=true", "--threshold=100", path)
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", rated)
    if not found:
        raise CheckFailed(f"systemd-analyze gives no exposure:\n{rated}")
    if float(found[1]) > MOST:
        raise CheckFailed(f"the default unit has an exposure of {found[1]}, more than {MOST}:\n{rated}")
    return {"exposure": float(found[1])}
