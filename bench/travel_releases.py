"""The part of :mod:`bench.travel` about releases: how long a worker takes no jobs while it changes to another release of itself.

The worker's log says when the old release has ended its poll, and when the new one, proven, has opened its session.
Between the two are the end of the daemon, the whole trial of the new release, and its start.
"""

from __future__ import annotations

import re
import statistics
from datetime import datetime
from typing import TYPE_CHECKING

from testkit.processes import wait_until
from testkit.wheels import write_wheels

if TYPE_CHECKING:
    from pathlib import Path

    from bench.travel import Bench

NAME = "releases"
VERSIONS = ("1000.1", "1000.2")
ENDS = re.compile(r"^(\S+ \S+) .* ends: .* takes over", re.MULTILINE)
SERVES = re.compile(r"^(\S+ \S+) .* session open with ", re.MULTILINE)


def measure(bench: Bench) -> dict[str, float]:
    """Let a worker change to a release, to another one and back; return the median of the gaps."""
    central = bench.central
    worker = bench.add_worker(NAME, queue=NAME)
    central.remote_change("PUT", "workers", NAME, "labels", labels={"worker": NAME})
    for version in VERSIONS:
        write_wheels(bench.home / version, version, {})
        central.cli("remote", "releases", "add", version, "--wheels", str(bench.home / version), timeout_s=600)
    gaps = []
    for serial in (1, 2, 1):
        rolled = central.remote_change("POST", "releases", "roll", labels={"worker": NAME}, to=serial)["serial"]
        wait_until(lambda serial=rolled: _runs(bench, serial), timeout_s=300, what=f"the worker runs serial {rolled}")
        gaps.append(_last_gap_s(worker.log))
    return {"release_gap_s": statistics.median(gaps)}


def _runs(bench: Bench, serial: int) -> bool:
    held = bench.central.remote_api("workers", NAME)["release"] or {}
    return (held.get("serial"), held.get("phase")) == (serial, "running")


def _last_gap_s(log: Path) -> float:
    text = log.read_text()
    ended, began = (_moment(pattern.findall(text)[-1]) for pattern in (ENDS, SERVES))
    return (began - ended).total_seconds()


def _moment(text: str) -> datetime:
    return datetime.strptime(text, "%Y-%m-%d %H:%M:%S,%f")  # both are of this computer's clock
