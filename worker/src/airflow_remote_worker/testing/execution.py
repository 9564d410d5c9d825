"""The fake central's Execution API: answers the calls of an ordinary task from memory.

Statuses and bodies follow Airflow 3.3 (`airflow/api_fastapi/execution_api/routes`). It does not check leases and credentials:
:mod:`.routes` has done that before.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote

from airflow_remote_worker.testing.ledger import Job
from airflow_remote_worker.testing.routes import split_target

Outcome = tuple[int, Mapping[str, str], bytes]
XComKey = tuple[str, str, str, str]
"""dag_id, run_id, task_id, key."""


@dataclass
class Call:
    """One parsed call of a task."""

    job: Job
    method: str
    parts: list[str]
    """Of the path, which is unquoted before it is split. The last parts, joined with slashes, are a key."""
    query: dict[str, str]
    content: Any
    """The body as JSON; None without one."""


@dataclass
class TaskCalls:
    """Answers the calls of tasks and remembers their writes. Tests may set and read everything public."""

    variables: dict[str, str | None] = field(default_factory=dict)
    ungranted: set[str] = field(default_factory=set)
    """Variables that are granted to no job. All others are granted to every job."""
    connections: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By connection id: `conn_type`, `host`, …"""
    xcoms: dict[XComKey, dict[int, Any]] = field(default_factory=dict)
    """By map index; -1 for a task that isn't mapped."""
    states: dict[str, list[str]] = field(default_factory=dict)
    """By task instance id: every state that was set, the oldest first."""
    rendered_fields: dict[str, Any] = field(default_factory=dict)
    stored: dict[tuple[str, str], Any] = field(default_factory=dict)
    """The task's store: by task instance id and key."""
    max_tries: int = 0
    should_retry: bool = False

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._runners: dict[str, tuple[Any, ...]] = {}
        self._resources: dict[str, Callable[[Call], Outcome]] = {
            "task-instances": self._task_instances,
            "task-reschedules": lambda call: _json(200, None),
            "dag-runs": self._dag_runs,
            "xcoms": self._xcoms,
            "variables": self._variables,
            "connections": self._connections,
            "store": self._store,
        }

    def __call__(self, job: Job, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Outcome:
        path, query = split_target(path)
        try:
            content = json.loads(body) if body else None
        except ValueError:
            return _refusal(422, "invalid_request", "the body is not JSON")
        parts = unquote(path).split("/")  # an encoded slash separates parts for Airflow, too; empty parts belong to keys
        call = Call(job, method, parts, {name: values[-1] for name, values in parse_qs(query).items()}, content)
        resource = self._resources.get(parts[0])
        with self._lock:
            return resource(call) if resource and len(parts) > 1 else _unknown(call)

    def _task_instances(self, call: Call) -> Outcome:
        ti_id = call.parts[1]
        match (call.method, call.parts[2:]):
            case ("PATCH", ["run"]):
                return self._run(call, ti_id)
            case ("PATCH", ["state"]):
                return self._set_state(call, ti_id)
            case ("PUT", ["heartbeat"]):
                state = self._state(ti_id)
                return (204, {}, b"") if state == "running" else _invalid_state("the task is not running", state)
            case ("PUT", ["rtif"]):
                self.rendered_fields[ti_id] = call.content
                return _json(201, {"message": "Rendered task instance fields successfully set"})
            case ("PATCH", ["rendered-map-index"] | ["skip-downstream"]):
                return 204, {}, b""
            case ("GET", ["previous-successful-dagrun"]):
                return _json(200, {})
            case ("GET", ["validate-inlets-and-outlets"]):
                return _json(200, {"inactive_assets": []})
        return _unknown(call)

    def _run(self, call: Call, ti_id: str) -> Outcome:
        runner = tuple((call.content or {}).get(name) for name in ("hostname", "unixname", "pid"))
        state = self._state(ti_id)
        if state == "running" and self._runners.get(ti_id) != runner:
            return _invalid_state("TI was not in a state where it could be marked as running", state)
        # A deferred or rescheduled task runs again under the same id; Airflow has queued it again by then.
        if state not in ("queued", "running", "deferred", "up_for_reschedule"):
            return _invalid_state("TI was not in a state where it could be marked as running", state)
        if state != "running":
            self._runners[ti_id] = runner
            self.states.setdefault(ti_id, []).append("running")
        ti = json.loads(call.job.workload)["ti"]
        return _json(
            200,
            {
                "dag_run": _dag_run(ti["dag_id"], ti["run_id"]),
                "task_reschedule_count": 0,
                "max_tries": self.max_tries,
                "variables": [],
                "connections": [],
                "xcom_keys_to_clear": [],
                "should_retry": self.should_retry,
            },
        )

    def _set_state(self, call: Call, ti_id: str) -> Outcome:
        wanted, state = str((call.content or {}).get("state")), self._state(ti_id)
        if wanted == state:
            return 200, {}, b""
        if state != "running":
            return _invalid_state("TI was not in the running state so it cannot be updated", state)
        self.states[ti_id].append(wanted)
        return 204, {}, b""

    def _state(self, ti_id: str) -> str:
        return (self.states.get(ti_id) or ["queued"])[-1]

    def _dag_runs(self, call: Call) -> Outcome:
        match (call.method, call.parts[1:]):
            case ("GET", [dag_id, run_id]) if dag_id != "previous":
                return _json(200, _dag_run(dag_id, run_id))
            case ("GET", [_, _, "state"]):
                return _json(200, {"state": "running"})
        return _unknown(call)

    def _xcoms(self, call: Call) -> Outcome:
        if len(call.parts) < 5:
            return _unknown(call)
        dag_id, run_id, task_id, *rest = call.parts[1:]
        path = "/".join(rest)
        by_offset = re.fullmatch(r"(.+)/item/(-?\d+)", path)
        is_slice = path.endswith("/slice")
        key = by_offset[1] if by_offset else path.removesuffix("/slice")
        values = self.xcoms.get((dag_id, run_id, task_id, key), {})
        mapped = [values[index] for index in sorted(values)]
        map_index = int(call.query.get("map_index", -1))
        match call.method:
            case "HEAD":
                return 200, {"content-range": f"map_indexes {len(values)}"}, b""
            case "GET" if is_slice:
                start, stop, step = (int(call.query[n]) if n in call.query else None for n in ("start", "stop", "step"))
                return _json(200, mapped[start:stop:step])
            case "GET" if by_offset and -len(mapped) <= int(by_offset[2]) < len(mapped):
                return _json(200, mapped[int(by_offset[2])])
            case "GET" if not by_offset and map_index in values:
                return _json(200, {"key": key, "value": values[map_index]})
            case "GET":
                return _refusal(404, "not_found", f"XCom with {key=} not found for task {task_id!r}")
            case "POST":
                self.xcoms.setdefault((dag_id, run_id, task_id, key), {})[map_index] = call.content
                return _json(201, {"message": "XCom successfully set"})
            case "DELETE":
                values.pop(map_index, None)
                return _json(200, {"message": "XCom successfully deleted"})
        return _unknown(call)

    def _variables(self, call: Call) -> Outcome:
        key = "/".join(call.parts[1:])
        match call.method:
            case _ if key in self.ungranted:
                return _refusal(403, "not_granted", f"nothing grants the variable {key!r} to this job")
            case "GET" if key == "keys":
                keys = sorted(name for name in self.variables if name.startswith(call.query.get("prefix", "")))
                return _json(200, {"keys": keys, "total_entries": len(keys)})
            case "GET" if key in self.variables:
                return _json(200, {"key": key, "value": self.variables[key]})
            case "GET":
                return _refusal(404, "not_found", f"Variable with key '{key}' not found")
            case "PUT":
                self.variables[key] = call.content.get("val", call.content.get("value"))
                return _json(201, {"message": "Variable successfully set"})
            case "DELETE":
                self.variables.pop(key, None)
                return 204, {}, b""
        return _unknown(call)

    def _connections(self, call: Call) -> Outcome:
        conn_id = "/".join(call.parts[1:])
        if call.method != "GET" or conn_id not in self.connections or "/" in conn_id:  # Airflow has no route for one with a slash
            return _refusal(404, "not_found", f"Connection with ID {conn_id} not found")
        empty = dict.fromkeys(("host", "schema", "login", "password", "port", "extra"))
        return _json(200, {"conn_id": conn_id, "conn_type": "generic", **empty, **self.connections[conn_id]})

    def _store(self, call: Call) -> Outcome:
        match (call.method, call.parts[1:]):
            case ("GET", ["ti", ti_id, *parts]) if (ti_id, "/".join(parts)) in self.stored:
                return _json(200, {"value": self.stored[ti_id, "/".join(parts)]})
            case ("PUT", ["ti", ti_id, *parts]) if parts:
                self.stored[ti_id, "/".join(parts)] = call.content["value"]
                return 204, {}, b""
            case ("DELETE", ["ti", ti_id, *parts]):
                key = "/".join(parts) if parts else None
                self.stored = {at: value for at, value in self.stored.items() if at[0] != ti_id or key not in (None, at[1])}
                return 204, {}, b""
        return _unknown(call)


def _dag_run(dag_id: str, run_id: str) -> dict[str, Any]:
    at = "2026-01-01T00:00:00Z"
    return {
        "dag_id": dag_id,
        "run_id": run_id,
        "logical_date": at,
        "data_interval_start": at,
        "data_interval_end": at,
        "run_after": at,
        "start_date": at,
        "end_date": None,
        "clear_number": 0,
        "run_type": "manual",
        "state": "running",
        "conf": {},
        "consumed_asset_events": [],
        "partition_key": None,
    }


def _json(status: int, content: object) -> Outcome:
    return status, {"content-type": "application/json"}, json.dumps(content).encode()


def _refusal(status: int, reason: str, message: str, **more: str) -> Outcome:
    return _json(status, {"detail": {"reason": reason, "message": message, **more}})


def _invalid_state(message: str, state: str) -> Outcome:
    return _refusal(409, "invalid_state", message, previous_state=state)


def _unknown(call: Call) -> Outcome:
    return _refusal(404, "not_found", f"the fake Execution API has no {call.method} {'/'.join(call.parts)}")
