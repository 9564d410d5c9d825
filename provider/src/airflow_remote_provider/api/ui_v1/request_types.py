"""The types of request fields, with their limits, and the base of request bodies."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from airflow_remote_provider.ledger.credentials import LONGEST_GLOB
from airflow_remote_provider.ledger.queues import LONGEST_NAME

MOST_NAMES = 100

QueueName = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=LONGEST_NAME, pattern=r"^[^\x00-\x1f,]+$")
]
WorkerName = Annotated[str, StringConstraints(min_length=1, max_length=100, pattern=r"^[^\x00-\x1f]+$")]
LabelPart = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=100, pattern=r"^[^\x00-\x1f,=]+$")]
BundleGlob = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=LONGEST_GLOB, pattern=r"^[^\x00-\x1f,]+$")
]
RuntimeName = Annotated[str, StringConstraints(min_length=1, max_length=63, pattern=r"^[a-z0-9][a-z0-9._-]*$")]
Reason = Annotated[str, StringConstraints(strip_whitespace=True, max_length=1000, pattern=r"^[^\x00]*$")]


class RequestBody(BaseModel):
    """A request body. An unknown field is refused, so that a misspelled field is never silently ignored."""

    model_config = ConfigDict(extra="forbid")


class RollRequest(RequestBody):
    percent: Annotated[int, Field(ge=0, le=100)] = 100
    """Share of the workers, among those with the labels."""
    labels: Annotated[dict[LabelPart, LabelPart], Field(max_length=MOST_NAMES)] = {}
    """Only workers with all of these labels; empty: all workers."""
    to: Annotated[int, Field(ge=1, lt=2**31)] | None = None
    """A serial whose trees are rolled out again, under a new serial; null: the newest build."""


class HaltRequest(RequestBody):
    reason: Reason = ""
