"""Hosts one job: reads `job.json`, lets the Task SDK's supervisor run the task, writes `result.json` last.

Everything Airflow must know of this one job is set here; what is the same for all jobs is in :mod:`environment` and
:mod:`preload`. The daemon may die and come back meanwhile (:mod:`gateway`).
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import msgspec

from airflow_remote_worker.shim import wire
from airflow_remote_worker.shim.gateway import Gateway
from airflow_remote_worker.shim.preload import preload
from airflow_remote_worker.shim.transport import BASE_URL, GatewayTransport

COORDINATOR = "airflow-remote"
WORKER_NAME = "AIRFLOW_REMOTE_WORKER_NAME"
SERVER_TERMINATED = "SERVER_TERMINATED"
"""The supervisor's final state for a task that it ended because of a heartbeat's answer; here only a stop answers so."""


def run(job_dir: Path) -> int:
    """Host the job in *job_dir* to its end; return 0 once its result is on disk, whatever the result is."""
    try:
        job = msgspec.json.decode((job_dir / "job.json").read_bytes(), type=wire.JobSpec)
        result = supervise(job, job_dir)
    except (Exception, SystemExit) as error:
        traceback.print_exc()
        reason = f"{type(error).__name__}: {error}"
        tell_reader(job_dir / "task.log", reason)
        result = wire.Result(exit_code=1, final_state="", error=reason)
    write_result(job_dir / "result.json", result)
    return 0


def supervise(job: wire.JobSpec, job_dir: Path) -> wire.Result:
    """Run the task by the Task SDK's supervisor; return how it ended.

    Raises:
        Exception: it couldn't even begin; nothing has run.
    """
    preload()
    from airflow.sdk.api.client import Client
    from airflow.sdk.api.datamodels._generated import BundleInfo, TaskInstance
    from airflow.sdk.execution_time.coordinator import get_coordinator_manager
    from airflow.sdk.execution_time.supervisor import supervise_task

    from airflow_remote_worker.shim.coordinator import RemoteCoordinator

    workload = msgspec.json.decode(job.workload)
    ti = TaskInstance.model_validate(workload["ti"])
    bundle_name: str = workload["bundle"]["name"]
    queue = ti.queue or "default"
    point_airflow_at(job, bundle_name, queue)

    gateway = Gateway(job.socket_path, wire.Hello(job_id=job.job_id, key=job.key, pid=os.getpid()))
    os.register_at_fork(after_in_child=gateway.abandon)  # the daemon's socket is not for user code
    coordinator = get_coordinator_manager().for_queue(queue)
    assert isinstance(coordinator, RemoteCoordinator)
    coordinator.gateway = gateway

    log = job_dir.resolve() / "task.log"
    open(log, "ab", opener=privately).close()
    error = ""
    try:
        supervise_task(
            ti=ti,
            # A local bundle knows no versions; the daemon has laid out the right one.
            bundle_info=BundleInfo(name=bundle_name),
            dag_rel_path=workload["dag_rel_path"],
            token="",
            client=Client(base_url=BASE_URL, token="", transport=GatewayTransport(gateway)),
            log_path=str(log),
        )
    except Exception as caught:  # of the supervisor, not of the task: a refused start, a last report that failed
        traceback.print_exc()
        error = describe(caught)
        tell_reader(log, error)
    exit_code = 1 if coordinator.exit_code is None else int(coordinator.exit_code)
    stopped = gateway.stop is not None and (coordinator.final_state == SERVER_TERMINATED or coordinator.exit_code is None)
    return wire.Result(exit_code=exit_code, final_state=coordinator.final_state, stopped=stopped, error=error)


def point_airflow_at(job: wire.JobSpec, bundle_name: str, queue: str) -> None:
    """Set the configuration of this job: its Dags, its coordinator, its host name."""
    from airflow.sdk.configuration import conf

    os.environ[WORKER_NAME] = job.worker_name
    # Not through the environment: an interpreter that the task starts (`run_as_user`) inherits that, but can't import us.
    os.environ.pop("AIRFLOW__CORE__HOSTNAME_CALLABLE", None)
    conf.set("core", "hostname_callable", f"{__name__}.{worker_name.__name__}")
    set_json(
        "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST",
        [
            {
                "name": bundle_name,
                "classpath": "airflow.dag_processing.bundles.local.LocalDagBundle",
                "kwargs": {"path": job.bundle_path, "refresh_interval": 0},
            }
        ],
    )
    set_json(
        "AIRFLOW__SDK__COORDINATORS",
        {COORDINATOR: {"classpath": "airflow_remote_worker.shim.coordinator.RemoteCoordinator"}},
    )
    set_json("AIRFLOW__SDK__QUEUE_TO_COORDINATOR", {queue: COORDINATOR})


def set_json(variable: str, value: Any) -> None:
    # Airflow expands `$NAME` in the values of such variables; in JSON the dollar can be written so that it doesn't see it.
    os.environ[variable] = json.dumps(value).replace("$", "\\u0024")


def worker_name() -> str:
    """`[core] hostname_callable`: what Airflow shows as the task's host."""
    return os.environ[WORKER_NAME]


def describe(error: Exception) -> str:
    """Return *error* in a line, with what the server said about it."""
    cause = error.__cause__ if getattr(error, "detail", None) is None else error
    detail = getattr(cause, "detail", None)
    return f"{type(error).__name__}: {error}" + (f" ({detail})" if detail else "")


def tell_reader(log: Path, reason: str) -> None:
    """Add *reason* to the task's log: whoever looks there would find nothing about it."""
    line = {
        "timestamp": datetime.now(tz=timezone.utc).isoformat(),
        "level": "error",
        "event": f"The Remote Worker could not host this task to its end: {reason}",
        "logger": "airflow_remote_worker.shim",
    }
    try:
        with open(log, "ab", opener=privately) as stream:
            stream.write(json.dumps(redact(line)).encode() + b"\n")
    except OSError as error:
        print(f"host: can't write to {log}: {error}", file=sys.stderr)


def redact(line: dict[str, str]) -> Any:
    try:
        from airflow.sdk._shared.secrets_masker import redact as mask
    except ImportError:  # then no secret was ever loaded either
        return line
    return mask(line)


def privately(path: str, flags: int) -> int:
    """An opener. Not a umask, which the task would inherit."""
    return os.open(path, flags, 0o600)


def write_result(path: Path, result: wire.Result) -> None:
    """Put *result* in place whole or not at all, also if the machine loses power."""
    part = path.with_suffix(".part")
    with open(part, "wb", opener=privately) as stream:
        stream.write(msgspec.json.encode(result))
        stream.flush()
        os.fsync(stream.fileno())
    part.replace(path)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
