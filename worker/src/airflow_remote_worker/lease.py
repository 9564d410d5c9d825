"""The name of a lease: one job at one epoch."""

from __future__ import annotations

from typing import NamedTuple


class Lease(NamedTuple):
    """Every call about a job names its lease. Central ignores calls with an older epoch."""

    job_id: str
    epoch: int

    def __str__(self) -> str:
        return f"{self.job_id} (epoch {self.epoch})"
