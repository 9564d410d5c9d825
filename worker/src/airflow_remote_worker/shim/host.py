"""Hosts one job: reads `job.json`, lets the Task SDK's supervisor of its kind run it, writes `result.json` last.

What a kind needs is in :mod:`tasks`, :mod:`callbacks` and :mod:`connection_tests`; what Airflow must know of this one job in
:mod:`configuration`; what is the same for all jobs in :mod:`environment` and :mod:`preload`. The daemon may die and come back
meanwhile (:mod:`gateway`).
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
from airflow_remote_worker.shim.contact import LastContact
from airflow_remote_worker.shim.gateway import Gateway
from airflow_remote_worker.shim.outbox import Outbox
from airflow_remote_worker.shim.preload import preload


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
    """Run the job by the Task SDK's own supervisor; return how it ended.

    Raises:
        Exception: it couldn't even begin; nothing has run.
    """
    preload()
    hello = wire.Hello(job_id=job.job_id, key=job.key, pid=os.getpid())
    gateway = Gateway(job.socket_path, hello, LastContact(job).verdict)
    os.register_at_fork(after_in_child=gateway.abandon)  # the daemon's socket is not for user code
    log = job_dir.resolve() / "task.log"
    open(log, "ab", opener=privately).close()
    result = _host(job, gateway, log)
    if result.error:
        tell_reader(log, result.error)
    return result


def _host(job: wire.JobSpec, gateway: Gateway, log: Path) -> wire.Result:
    if job.kind == "task":
        from airflow_remote_worker.shim.tasks import host_task

        return host_task(job, gateway, log, Outbox(log.parent))
    if job.kind == "callback":
        from airflow_remote_worker.shim.callbacks import host_callback

        return host_callback(job, gateway, log)
    if job.kind == "connection-test":
        from airflow_remote_worker.shim.connection_tests import host_connection_test

        return host_connection_test(job, gateway, log)
    raise ValueError(f"this worker can't host jobs of the kind {job.kind!r}; update it")


def tell_reader(log: Path, reason: str) -> None:
    """Add *reason* to the job's log: whoever looks there would find nothing about it."""
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
