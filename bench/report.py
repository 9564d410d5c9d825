"""Prints the figures as a table and writes them to `bench/results/latest.json`."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path

import psutil

from bench.figures import OURS, Figure, headline

RESULTS = Path(__file__).parent / "results"
PEERS = ("local", "celery", "edge")


def print_table(phase: str, figures: Sequence[Figure]) -> None:
    """Print the figures of one phase with the peers' values and the ratios of ours to theirs: below 1, ours is better."""
    peers = [peer for peer in PEERS if any(peer in figure.values for figure in figures)]
    print(f"\n{phase}")
    print(
        "  " + " ".join([f"{'':<28}", f"{OURS:>9}", *(f"{peer:>9}" for peer in peers), *(f"{'/' + peer:>8}" for peer in peers)])
    )
    for figure in figures:
        values = [_number(figure.values.get(peer)) for peer in (OURS, *peers)]
        ratios = [_number(figure.ratio(peer), 2) for peer in peers]
        print("  " + " ".join([f"{figure.name:<28}", *(f"{v:>9}" for v in values), *(f"{r:>8}" for r in ratios), figure.unit]))
    print()
    for figure in figures:
        print(f"  {figure.name:<28} {figure.text}{f' [{figure.unit}]' if figure.unit else ''}")


def write_results(
    phases: Mapping[str, Sequence[Figure]], details: Mapping[str, object], *, options: Mapping[str, object]
) -> Path:
    """Write all results of this run; return the path."""
    content = {
        "at": datetime.now(timezone.utc).isoformat(),
        "options": dict(options),
        "machine": machine(),
        "headline": headline_of(phases),
        "phases": {phase: {figure.name: figure.as_json() for figure in figures} for phase, figures in phases.items()},
        "details": dict(details),
    }
    RESULTS.mkdir(exist_ok=True)
    target = RESULTS / "latest.json"
    target.write_text(json.dumps(content, indent=2) + "\n")
    return target


def headline_of(phases: Mapping[str, Sequence[Figure]]) -> dict[str, float]:
    """Return the headline of all phases; if two phases have the same figure, the earlier one counts."""
    merged: dict[str, float] = {}
    for figures in phases.values():
        merged = headline(figures) | merged
    return merged


def machine() -> dict[str, object]:
    return {
        "cpus": os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "load_average_1_5_15": os.getloadavg(),
        "python": platform.python_version(),
        "system": platform.platform(),
        "airflow": version("apache-airflow-core"),
    }


def _number(value: float | None, digits: int = 3) -> str:
    if value is None:
        return "-"
    return f"{value:.{digits if abs(value) < 100 else 1}f}"
