"""Fails a task if central refuses one of its writes after the task got a success for it.

While central is out of reach, a task's writes go into its job's outbox, and the task goes on. A write that central refuses later
is lost. If the task then succeeded, downstream tasks would find no value where they expect one.
"""

from __future__ import annotations

import re
from datetime import datetime, timezone
from typing import Any

import msgspec

from airflow_remote_worker.local import frames

STATE = re.compile(r"task-instances/[^/?]+/state")
FAILURES = ("failed", "up_for_retry")
"""States after which a lost write does no harm: a retry writes again, or the task has failed anyway."""


def is_state_report(call: frames.Call) -> bool:
    """Return whether *call* reports the state of the task."""
    return call.method == "PATCH" and STATE.fullmatch(call.path) is not None


def may_collide(call: frames.Call, status: int) -> bool:
    """Return whether *status* may mean that an earlier copy of the write is in progress: the database accepts one at a time."""
    return status == 409 and frames.OWN_CALL.match(call.path) is None


def replace_with_failure(call: frames.Call, *, lost_at: float) -> frames.Call:
    """Return a call that reports *failed* if *call* reports a success, a skip or a wait; else return *call*.

    Equal calls give equal bytes, because central accepts a repeated state only if it is unchanged.

    Args:
        call: a call of a job that lost a write.
        lost_at: when central refused the write, in seconds since the epoch. Used as the end time of a task that reports a wait.
    """
    if not is_state_report(call):
        return call
    try:
        body: dict[str, Any] = msgspec.json.decode(call.body, type=dict[str, Any])
    except (msgspec.DecodeError, msgspec.ValidationError):
        return call  # central refuses it
    if body.get("state") in FAILURES:
        return call
    ended_at = body.get("end_date") or datetime.fromtimestamp(lost_at, tz=timezone.utc).isoformat()
    failed = {"state": "failed", "end_date": ended_at, "rendered_map_index": body.get("rendered_map_index")}
    return msgspec.structs.replace(call, body=msgspec.json.encode(failed))
