"""The types of request fields, with their limits, and the base of request bodies."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, StringConstraints

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
