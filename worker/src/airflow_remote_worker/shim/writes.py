"""The Execution API calls of a task that may wait on this disk, and the success that the Task SDK is answered meanwhile.

A call is in the table if all of these hold:

1. The Task SDK makes it for its effect: it checks only that the answer is a success (`airflow.sdk.api.client`).
2. Repeating it has the same effect as making it once (a reply may be lost), in Airflow's handlers
   (`airflow.api_fastapi.execution_api.routes`, named at each row).
3. Its effect is on this task instance, or a consequence of its end. Values that others read while the task runs don't qualify:
   when `Variable.set` returns, the task may rely on other readers seeing the value. So variables, asset stores, triggered Dag
   runs, human input and connection tests wait for central as reads do. So does `run`, which asks whether the task may start.
"""

from __future__ import annotations

import contextlib
import re
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

from airflow_remote_protocol import bounds
from airflow_remote_protocol.bounds import OutOfBounds


class Write(NamedTuple):
    """A row: a method, a path without its query, the status of Airflow's success, and the bounds of the body."""

    method: str
    path: re.Pattern[str]
    status: int
    body: Any = None
    """The same as in central's table of rules for the route; None: there is no body."""


WRITES = (
    # xcoms.set_xcom: deletes the row of this key and map index, then inserts; the task map's length is merged.
    Write("POST", re.compile(r"xcoms/[^/]+/[^/]+/[^/]+/(?P<key>.+)"), 201, bounds.XCom),
    # xcoms.delete_xcom: one DELETE; it succeeds without a row too.
    Write("DELETE", re.compile(r"xcoms/[^/]+/[^/]+/[^/]+/(?P<key>.+)"), 200),
    # task_instances.ti_put_rtif: an upsert by the task instance's key.
    Write("PUT", re.compile(r"task-instances/[^/]+/rtif"), 201, bounds.RenderedFields),
    # task_instances.ti_patch_rendered_map_index: one UPDATE to the value given.
    Write("PATCH", re.compile(r"task-instances/[^/]+/rendered-map-index"), 204, bounds.RenderedMapIndex),
    # task_instances.ti_skip_downstream: one UPDATE of the tasks that have not begun.
    Write("PATCH", re.compile(r"task-instances/[^/]+/skip-downstream"), 204, bounds.SkipDownstream),
    # task_instances.ti_update_state: the same state again is a 200 without effect. If the scheduler has moved the task on since
    # (next try, resumed, poked again), central recognises the repeat by its lease (provider, `ledger.leases.conclude`).
    Write("PATCH", re.compile(r"task-instances/[^/]+/state"), 204, bounds.State),
    # task_state_store: an upsert with an absolute expiry; deletions of rows that may not exist.
    Write("PUT", re.compile(r"store/ti/[^/]+/(?P<key>.+)"), 204, bounds.Stored),
    Write("DELETE", re.compile(r"store/ti/[^/]+(/.+)?"), 204),
)


def success_of(method: str, path: str) -> int | None:
    """Return the status of a success if the call may wait; None if it may not. *path*: with or without its query."""
    path = path.partition("?")[0]
    return next((write.status for write in WRITES if write.method == method and write.path.fullmatch(path)), None)


def check(method: str, path: str, body: bytes) -> None:
    """Check that central would accept this write by its path, its parameters and its body.

    Raises:
        OutOfBounds: central would refuse it. After an outage the write would be lost by that, so the task must learn of it now.
    """
    path, _, query = path.partition("?")
    decoded = bounds.decode_path(path)
    for write in WRITES:
        if write.method == method and (found := write.path.fullmatch(decoded)):
            with contextlib.suppress(bounds.NoRule):  # central may be newer than this worker
                bounds.check(write.body, named=found.groupdict(), query=parse_qsl(query, keep_blank_values=True), body=body)
            return
    raise OutOfBounds(f"{method} {path[:200]!r} is not a write that central knows")
