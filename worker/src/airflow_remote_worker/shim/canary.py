"""Runs the canary, a built-in Dag that is hosted like any task, on canned answers, to test whether this runtime can host tasks.

It uses neither central nor the daemon's gateway nor the site's Dags, and does not call the listeners of plugins.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import sys
import traceback
from pathlib import Path
from typing import Any

import msgspec

from airflow_remote_worker.local import frames, job_files
from airflow_remote_worker.local.seal import sealed
from airflow_remote_worker.shim import environment, lossy, posix
from airflow_remote_worker.shim.daemon_client import DaemonClient
from airflow_remote_worker.shim.outbox_writer import OutboxWriter
from airflow_remote_worker.shim.preload import preload

DAGS = Path(__file__).parent / "canary_dag"
NAME = "airflow_remote_canary"
TI_ID = "00000000-0000-4000-8000-000000000001"
AT = "2026-01-01T00:00:00Z"
WORKLOAD = {
    "ti": {
        "id": TI_ID,
        "dag_version_id": "00000000-0000-4000-8000-000000000002",
        "dag_id": NAME,
        "task_id": "canary",
        "run_id": "canary",
        "try_number": 1,
        "map_index": -1,
        "queue": NAME,
    },
    "dag_rel_path": f"{NAME}.py",
    "bundle": {"name": NAME, "version": None},
}
RUN_CONTEXT = {
    "dag_run": {
        "dag_id": NAME,
        "run_id": "canary",
        "logical_date": AT,
        "data_interval_start": AT,
        "data_interval_end": AT,
        "run_after": AT,
        "start_date": AT,
        "end_date": None,
        "run_type": "manual",
        "state": "running",
        "conf": {},
        "consumed_asset_events": [],
        "partition_key": None,
    },
    "max_tries": 0,
    "should_retry": False,
}
LONGEST_REASON = 1500
"""Characters; the worker adds more text around it."""


def run(directory: Path) -> int:
    """Run the canary in *directory*, write `result.json` there, and return 0, whatever the result."""
    lossy.guard_stdio()
    log = directory.resolve() / "task.log"
    try:
        trouble = _host(directory, log=log)
    except (Exception, SystemExit) as error:
        traceback.print_exc()
        trouble = f"{type(error).__name__}: {error}"
    posix.leftovers.end()
    found = job_files.CanaryResult(
        trouble=trouble[:LONGEST_REASON],
        airflow=_version_of("apache-airflow-core") or _version_of("apache-airflow"),
        task_sdk=_version_of("apache-airflow-task-sdk"),
        python=platform.python_version(),
        watched=_watched(),
    )
    part = directory / "result.part"
    part.write_bytes(sealed(msgspec.json.encode(found)))
    part.replace(directory / "result.json")
    return 0


def _host(directory: Path, *, log: Path) -> str:
    """Host the task; return a description of the error, empty if it succeeded."""
    preload()
    _mute_listeners()
    from airflow_remote_worker.shim.tasks import host_task

    job = job_files.JobSpec(
        job_id=NAME,
        key="",
        socket_path="",
        worker_name=NAME,
        queue=NAME,
        workload=msgspec.Raw(msgspec.json.encode(WORKLOAD)),
        bundle_path=str(DAGS),
    )
    gateway = CannedGateway()
    result = host_task(job, gateway, log=log, outbox=OutboxWriter(directory))
    if result.exit_code == 0 and result.final_state == "success" and not result.error:
        return ""
    return result.error or last_error(log) or f"its task ended as {result.final_state or 'nothing'}, exit code {result.exit_code}"


def _mute_listeners() -> None:
    from airflow.sdk.listener import get_listener_manager

    get_listener_manager().clear()


class CannedGateway(DaemonClient):
    """Answers as central would for a task that runs undisturbed. Uses no daemon."""

    def __init__(self) -> None:
        super().__init__("", frames.Hello(job_id=NAME, key="", pid=os.getpid()))

    def call(
        self, method: str, path: str, *, headers: dict[str, str], body: bytes, may_spool: bool = False
    ) -> frames.Answer | frames.Spool | None:
        status: int = 200
        content: dict[str, Any] = {"message": "ok"}
        if path.endswith("/run"):
            content = RUN_CONTEXT
        elif method in ("GET", "HEAD"):
            status, content = 404, {"detail": {"reason": "not_found", "message": f"the canary has no {path}"}}
        self.note_call(path, status)
        return frames.Answer(id=0, status=status, headers={"content-type": "application/json"}, body=json.dumps(content).encode())

    def drain(self) -> None:
        return None


def last_error(log: Path) -> str:
    """Return the last error in the log of a task, with its exception; empty if there is no error."""
    try:
        lines = log.read_bytes()[-256 * 1024 :].splitlines()
    except OSError:
        return ""
    for line in reversed(lines):
        try:
            entry: dict[str, Any] = json.loads(line)
            if entry.get("level") in ("error", "critical"):
                causes = [f"{cause.get('exc_type')}: {cause.get('exc_value')}" for cause in entry.get("error_detail") or ()]
                return ": ".join([str(entry.get("event", "")), *causes[-1:]])
        except (ValueError, AttributeError):
            continue
    return ""


def _version_of(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)[:50]
    except importlib.metadata.PackageNotFoundError:
        return ""


def _watched() -> list[str]:
    """Return the paths that change with the runtime: its packages, its settings, its plugins."""
    places = [entry for entry in sys.path if Path(entry).name in ("site-packages", "dist-packages")]
    home = environment.airflow_home()
    return [*places, str(home / "airflow.cfg"), str(home / "config"), str(environment.plugins_folder())]
