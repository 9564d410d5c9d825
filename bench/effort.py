"""Measures CPU time and memory of one side's processes; CPU time includes the children that they have reaped.

A child that no process of its side has reaped is not counted; none of the executors leaves such children.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping

import psutil

Side = Callable[[], Iterable[psutil.Process]]


def cpu_seconds(processes: Iterable[psutil.Process]) -> float:
    total = 0.0
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
    return total


@contextlib.contextmanager
def measure_effort(sides: Mapping[str, Side]) -> Iterator[dict[str, float]]:
    """Yield a dict that contains, after the block, the CPU seconds that each side used in the block."""
    before = {name: cpu_seconds(side()) for name, side in sides.items()}
    used: dict[str, float] = {}
    yield used
    used |= {name: max(0.0, cpu_seconds(side()) - before[name]) for name, side in sides.items()}


def pss_mb(processes: Iterable[psutil.Process]) -> float:
    """Return the sum of their PSS in MB (10⁶ bytes): shared pages are counted once in all."""
    total = 0.0
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            total += process.memory_full_info().pss / 1e6
    return total


def rss_mb(processes: Iterable[psutil.Process]) -> float:
    """Return the sum of their resident sets in MB: shared pages are counted for each process."""
    total = 0.0
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            total += process.memory_info().rss / 1e6
    return total
