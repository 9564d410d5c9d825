"""Figures: measured values by executor with their samples, medians and ratios, and their JSON. No I/O."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

OURS = "remote"

HEADLINES = {
    "chain_started_p50_ratio_celery": ("chain_started_p50", "celery"),
    "chain_started_p50_ratio_local": ("chain_started_p50", "local"),
    "chain_code_p50_ratio_celery": ("chain_code_p50", "celery"),
    "chain_total_ratio_local": ("chain_total", "local"),
    "fifty_tasks_ratio_celery": ("fifty_tasks", "celery"),
    "fifty_tasks_ratio_local": ("fifty_tasks", "local"),
    "fifty_cpu_api_ratio_celery": ("fifty_cpu_api", "celery"),
    "fifty_cpu_all_ratio_celery": ("fifty_cpu_all", "celery"),
    "idle_1000_cpu_percent": ("idle_1000_cpu_percent", None),
    "idle_1000_statements_per_s": ("idle_1000_statements_per_s", None),
    "idle_1000_errors": ("idle_1000_errors", None),
    "idle_1000_accepted_p50_s": ("idle_1000_accepted_p50", None),
    "kill_p50_s": ("kill_p50", None),
    "kill_p95_s": ("kill_p95", None),
    "idle_daemon_pss_mb": ("idle_daemon_pss", None),
    "idle_pss_mb": ("idle_pss", None),
    "task_pss_mb": ("task_pss", None),
    "worker_packages": ("worker_packages", None),
    "worker_mb": ("worker_mb", None),
}
"""The headline: name → (figure, peer for a ratio; None: our own value). Figures that were not measured are omitted."""


@dataclass(frozen=True)
class Figure:
    """One figure: its value for us and for each measured peer, from the same run."""

    name: str
    unit: str
    text: str
    values: Mapping[str, float]
    samples: Mapping[str, Sequence[float]] = field(default_factory=dict)
    """The samples that the values are medians of; empty if they were measured once."""

    @classmethod
    def of(cls, name: str, unit: str, text: str, samples: Mapping[str, Sequence[float]]) -> Figure:
        """Make a figure of the medians of *samples*."""
        return cls(name, unit, text, {peer: statistics.median(values) for peer, values in samples.items()}, samples)

    def ratio(self, peer: str) -> float | None:
        """Return our value divided by the peer's; None if either is missing or the peer's is 0."""
        ours, theirs = self.values.get(OURS), self.values.get(peer)
        return None if ours is None or not theirs else ours / theirs

    @property
    def peers(self) -> list[str]:
        return [peer for peer in self.values if peer != OURS]

    def as_json(self) -> dict[str, Any]:
        ratios = {peer: self.ratio(peer) for peer in self.peers}
        return {
            "unit": self.unit,
            "what": self.text,
            "ours": self.values.get(OURS),
            "peers": {peer: self.values[peer] for peer in self.peers},
            "ratios": {peer: ratio for peer, ratio in ratios.items() if ratio is not None},
            "samples": {peer: list(values) for peer, values in self.samples.items()},
        }


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the smallest of *values* that at least *percent* of them don't exceed (nearest rank: always one of the values).

    Raises:
        ValueError: no values.
    """
    if not values:
        raise ValueError("no values: a percentile needs at least one")
    ordered = sorted(values)
    rank = -(-len(ordered) * percent // 100)  # rounded up
    return ordered[max(0, min(len(ordered), int(rank)) - 1)]


def headline(figures: Iterable[Figure]) -> dict[str, float]:
    """Return the figures that have budgets, by their names in :data:`HEADLINES`."""
    known = {figure.name: figure for figure in figures}
    found: dict[str, float] = {}
    for name, (figure, peer) in HEADLINES.items():
        if figure not in known:
            continue
        value = known[figure].values.get(OURS) if peer is None else known[figure].ratio(peer)
        if value is not None:
            found[name] = round(value, 3)
    return found
