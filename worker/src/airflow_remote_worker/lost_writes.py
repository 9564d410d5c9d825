"""What becomes of a task whose write central refused after the task had heard that it was written: it fails.

A task writes into its job's outbox while central is out of reach, and goes on. What central refuses later is lost. A success
behind it would let downstream tasks read nothing where they expect a value.
"""

from __future__ import annotations

import re
from datetime import datetime, timezone
from typing import Any

import msgspec

from airflow_remote_worker.local import frames

STATE = re.compile(r"task-instances/[^/?]+/state")
FAILURES = ("failed", "up_for_retry")
"""States that lose nothing: the next try writes again, or there is none."""


def is_state(call: frames.Call) -> bool:
    """Whether the call reports the state of the task."""
    return call.method == "PATCH" and STATE.fullmatch(call.path) is not None


def collides(call: frames.Call, status: int) -> bool:
    """Whether an answer may mean that an earlier copy of the same write is under way: the database takes one of two at a time."""
    return status == 409 and frames.OWN_CALL.match(call.path) is None


def failed_instead(call: frames.Call, *, lost_at: float) -> frames.Call:
    """Return the call that reports *failed* if this one reports a success, a skip or a wait; else the call itself.

    The same call gives the same bytes each time: central takes a repeated state only as it was.

    Args:
        call: of a job that lost a write.
        lost_at: when that was refused, in seconds since the epoch. The end of a task that was to wait.
    """
    if not is_state(call):
        return call
    try:
        said: dict[str, Any] = msgspec.json.decode(call.body, type=dict[str, Any])
    except (msgspec.DecodeError, msgspec.ValidationError):
        return call  # central refuses it
    if said.get("state") in FAILURES:
        return call
    ended_at = said.get("end_date") or datetime.fromtimestamp(lost_at, tz=timezone.utc).isoformat()
    failed = {"state": "failed", "end_date": ended_at, "rendered_map_index": said.get("rendered_map_index")}
    return msgspec.structs.replace(call, body=msgspec.json.encode(failed))
