"""A remote site whose network, daemon and clock a test controls."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from testkit.network.fault_proxy import FaultProxy
from testkit.servers.airflow import Airflow
from testkit.worker import Worker


@dataclass(frozen=True)
class Site:
    """One worker, the only one of its queue (which has its name), and the network between it and central."""

    central: Airflow
    worker: Worker
    network: FaultProxy

    @property
    def name(self) -> str:
        return self.worker.name

    def status(self) -> dict[str, Any]:
        """Return the daemon's status, read from its file: the command takes longer."""
        return dict(json.loads((self.worker.state / "status.json").read_bytes()))

    def is_connected(self) -> bool:
        """Return whether the daemon that was started last has a session and reports no trouble."""
        try:
            status = self.status()
        except (FileNotFoundError, ValueError):
            return False
        return bool(status["session"]) and not status["trouble"] and status["pid"] == self.worker.pid

    def clock_differs_s(self) -> float:
        """Return the seconds by which the worker's clock is ahead of central's, as `airflow-remote-worker check` reports."""
        output = self.worker.run("check", may_fail=True)  # a wrong clock is a failure
        found = re.search(r"this clock is (\d+) s (ahead of|behind)", output)
        assert found, output
        return float(found[1]) * (1 if found[2] == "ahead of" else -1)
