"""Which Execution API calls of a task may wait on this disk, and what the Task SDK is told meanwhile.

A call is in the table if all of this holds:

1. the Task SDK makes it for its effect: it looks at nothing in the answer but that it is a success (`airflow.sdk.api.client`);
2. done twice in a row it leaves what it leaves when done once (a reply may be lost), as Airflow's handlers have it
   (`airflow.api_fastapi.execution_api.routes`, named beside each);
3. its effect is on this task instance, or a consequence of its end. What others read while the task runs is no such thing: when
   `Variable.set` returns, the task may tell the world. Variables, asset stores, triggered Dag runs, human input and connection
   tests therefore wait for central as reads do; so does `run`, which asks whether the task may start at all.
"""

from __future__ import annotations

import contextlib
import re
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

from airflow_remote_protocol import bounds
from airflow_remote_protocol.bounds import OutOfBounds


class Write(NamedTuple):
    """A row: a method, a path without its query, the success that Airflow would answer with, and the bounds of the body."""

    method: str
    path: re.Pattern[str]
    status: int
    body: Any = None
    """As central's table of rules has it for the route; None: there is none."""


WRITES = (
    # xcoms.set_xcom: deletes the row of this key and map index, then inserts; the task map's length is merged.
    Write("POST", re.compile(r"xcoms/[^/]+/[^/]+/[^/]+/(?P<key>.+)"), 201, bounds.XCom),
    # xcoms.delete_xcom: one DELETE; none left is a success too.
    Write("DELETE", re.compile(r"xcoms/[^/]+/[^/]+/[^/]+/(?P<key>.+)"), 200),
    # task_instances.ti_put_rtif: an upsert by the task instance's key.
    Write("PUT", re.compile(r"task-instances/[^/]+/rtif"), 201, bounds.RenderedFields),
    # task_instances.ti_patch_rendered_map_index: one UPDATE to the value given.
    Write("PATCH", re.compile(r"task-instances/[^/]+/rendered-map-index"), 204, bounds.RenderedMapIndex),
    # task_instances.ti_skip_downstream: one UPDATE of those that have not begun.
    Write("PATCH", re.compile(r"task-instances/[^/]+/skip-downstream"), 204, bounds.SkipDownstream),
    # task_instances.ti_update_state: the same state again is a 200 that does nothing. Where the first one let the scheduler move
    # the task on (next try, resumed, poked again), central knows the repeat by its lease (provider, `ledger.leases.conclude`).
    Write("PATCH", re.compile(r"task-instances/[^/]+/state"), 204, bounds.State),
    # task_state_store: an upsert with an absolute expiry; deletions of what may be gone.
    Write("PUT", re.compile(r"store/ti/[^/]+/(?P<key>.+)"), 204, bounds.Stored),
    Write("DELETE", re.compile(r"store/ti/[^/]+(/.+)?"), 204),
)


def success_of(method: str, path: str) -> int | None:
    """Return the status that stands for success if the call may wait; None if it may not. *path*: with or without its query."""
    path = path.partition("?")[0]
    return next((write.status for write in WRITES if write.method == method and write.path.fullmatch(path)), None)


def check(method: str, path: str, body: bytes) -> None:
    """Return if central would not refuse this write for its path, its parameters or its body.

    Raises:
        OutOfBounds: it would. Refused after an outage the write would be lost, so the task has to hear of it now.
    """
    path, _, query = path.partition("?")
    decoded = bounds.read_path(path)
    for write in WRITES:
        if write.method == method and (found := write.path.fullmatch(decoded)):
            with contextlib.suppress(bounds.Unknown):  # central may be newer than this worker
                bounds.check(write.body, found.groupdict(), parse_qsl(query, keep_blank_values=True), body)
            return
    raise OutOfBounds(f"{method} {path[:200]!r} is no write that central knows")
