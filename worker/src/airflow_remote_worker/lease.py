"""The name of a lease: one job at one epoch."""

from __future__ import annotations

from typing import NamedTuple

from airflow_remote_protocol.messages import Offer


class Lease(NamedTuple):
    """Every call about a job names its lease. Central ignores calls with an older epoch."""

    job_id: str
    epoch: int

    def __str__(self) -> str:
        return f"{self.job_id} (epoch {self.epoch})"


SITE = ""
"""The runtime that the site has installed itself. Those from central are named by the digests of their trees."""


def runtime_of(offer: Offer) -> str:
    """Return the runtime that a job runs in."""
    return offer.runtime.tree.digest if offer.runtime else SITE
