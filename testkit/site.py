"""A remote site whose network, daemon and clock a test commands."""

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
    """One worker, alone on its queue (of the same name), and the network between it and central."""

    central: Airflow
    worker: Worker
    network: FaultProxy

    @property
    def name(self) -> str:
        return self.worker.name

    def status(self) -> dict[str, Any]:
        """What the daemon says of itself. Read from its file: the command takes longer."""
        return dict(json.loads((self.worker.state / "status.json").read_bytes()))

    def hears_central(self) -> bool:
        """Say whether the daemon that was started last has a session, and had no trouble since."""
        try:
            told = self.status()
        except (FileNotFoundError, ValueError):
            return False
        return bool(told["session"]) and not told["trouble"] and told["pid"] == self.worker.pid

    def clock_differs_s(self) -> float:
        """By how much the worker's clock is ahead of central's, as `airflow-remote-worker check` says."""
        told = self.worker.run("check", may_fail=True)  # that it is off is a failure
        found = re.search(r"this clock is (\d+) s (ahead of|behind)", told)
        assert found, told
        return float(found[1]) * (1 if found[2] == "ahead of" else -1)
