"""The name of what we hold: one job at one epoch."""

from __future__ import annotations

from typing import NamedTuple


class Lease(NamedTuple):
    """What every call about a job speaks for; an older epoch's word changes nothing at central."""

    job_id: str
    epoch: int

    def __str__(self) -> str:
        return f"{self.job_id} (epoch {self.epoch})"
