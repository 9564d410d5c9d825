"""Hosts one job: reads `job.json`, runs it with the Task SDK's supervisor for its kind, ends the processes that it left, and
writes `result.json` last.

The kinds of jobs are in :mod:`tasks`, :mod:`callbacks` and :mod:`connection_tests`, Airflow's configuration for one job in
:mod:`configuration`, and its preparation for all jobs in :mod:`environment` and :mod:`preload`. The daemon may end and restart
meanwhile (:mod:`daemon_client`).
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from datetime import datetime, timezone
from pathlib import Path

import msgspec

from airflow_remote_worker.local import frames, job_files, run_as
from airflow_remote_worker.local.seal import sealed, unsealed
from airflow_remote_worker.shim import compat, lossy, posix
from airflow_remote_worker.shim.contact import LastContact
from airflow_remote_worker.shim.daemon_client import DaemonClient
from airflow_remote_worker.shim.missing_module import explain_missing_module
from airflow_remote_worker.shim.outbox_writer import OutboxWriter
from airflow_remote_worker.shim.preload import preload

RESERVE = 4096
"""Bytes (one block) reserved for the result at the start, so that a disk that is full at the end does not lose a success."""
LOOK_AGAIN_S = 5.0
"""Between attempts to store a result for which there was no room despite the reservation."""


def run(job_dir: Path) -> int:
    """Host the job in *job_dir* to its end; return 0 once its result is on disk, whatever the result."""
    lossy.guard_stdio()
    if (job_dir / job_files.HOST_SPEC).exists():
        from airflow_remote_worker.shim.triggers import program

        return program.run(job_dir)
    if (job_dir / job_files.CANARY_SPEC).exists():
        from airflow_remote_worker.shim import canary

        return canary.run(job_dir)
    os.environ[job_files.JOB_MARK] = job_dir.name
    reserve(job_dir / "result.json")
    log = job_dir.resolve() / "task.log"
    try:
        job = msgspec.json.decode(unsealed((job_dir / "job.json").read_bytes()), type=job_files.JobSpec)
        result = supervise(job, log)
    except (Exception, SystemExit) as error:
        traceback.print_exc()
        reason = f"{type(error).__name__}: {error}"
        append_to_log(log, f"The Remote Worker could not host this task to its end: {reason}")
        result = job_files.Result(exit_code=1, final_state="", error=reason, begun=False)
    if ended := posix.leftovers.end():
        append_to_log(log, f"Ended processes that the job left running: {', '.join(ended)}", level="warning")
    write_loss_mark(log)
    write_result(job_dir / "result.json", result)
    return 0


def supervise(job: job_files.JobSpec, log: Path) -> job_files.Result:
    """Run the job with the Task SDK's own supervisor; return how it ended.

    Raises:
        Exception: it could not begin; nothing has run.
    """
    preload()
    hello = frames.Hello(job_id=job.job_id, key=job.key, pid=os.getpid())
    gateway = DaemonClient(job.socket_path, hello, LastContact(job).verdict)
    posix.after_fork(gateway.abandon)  # user code must not have the daemon's socket
    if job.run_as_user:
        run_as.fork_children_as(job.run_as_user)
    lossy.use_lossy_log_files()
    lossy.opened(log).close()
    result = _host(job, gateway, log)
    if result.error:
        append_to_log(log, f"The Remote Worker could not host this task to its end: {result.error}")
    has_failed = result.exit_code or result.final_state in ("failed", "up_for_retry")
    if has_failed and not result.stopped and (lacking := explain_missing_module(job, log)):
        append_to_log(log, lacking)
    if result.begun is False and job.code_note:
        append_to_log(log, f"The task ended before its own code began. A possible reason: {job.code_note}.")
    return result


def _host(job: job_files.JobSpec, gateway: DaemonClient, log: Path) -> job_files.Result:
    if job.kind == "task":
        from airflow_remote_worker.shim.tasks import host_task

        return host_task(job, gateway, log=log, outbox=OutboxWriter(log.parent))
    if job.kind == "callback":
        from airflow_remote_worker.shim.callbacks import host_callback

        return host_callback(job, gateway, log)
    if job.kind == "connection-test":
        from airflow_remote_worker.shim.connection_tests import host_connection_test

        return host_connection_test(job, gateway, log)
    raise ValueError(f"this worker can't host jobs of the kind {job.kind!r}; update it")


def append_to_log(log: Path, event: str, *, level: str = "error") -> None:
    """Append *event* to the job's log, where users look for the cause."""
    line = {
        "timestamp": datetime.now(tz=timezone.utc).isoformat(),
        "level": level,
        "event": event,
        "logger": "airflow_remote_worker.shim",
    }
    try:
        with lossy.opened(log) as stream:
            stream.write(json.dumps(compat.redact(line)).encode() + b"\n")
    except OSError as error:
        print(f"host: can't write to {log}: {error}", file=sys.stderr)


def open_private(path: str, flags: int) -> int:
    """Open *path* for this user only; for `open(opener=…)`. A umask would be inherited by the task."""
    return os.open(path, flags, 0o600)


def reserve(path: Path) -> None:
    """Reserve disk space for the result at *path* and for a last line in the log."""
    for part in (path.with_suffix(".part"), path.with_suffix(".room")):
        try:
            with open(part, "wb", opener=open_private) as stream:
                stream.write(b" " * RESERVE)
        except OSError as error:
            print(f"host: no disk space is left to reserve: {error}", file=sys.stderr)


def write_loss_mark(log: Path) -> None:
    """Write the number of lost bytes, if any, into the log, using the space that was reserved for that."""
    log.with_name("result.room").unlink(missing_ok=True)
    with lossy.opened(log) as stream:
        if not stream.mark():
            print(f"host: {stream.lost} bytes of {log} are lost, and there is no room in it to note that", file=sys.stderr)


def write_result(path: Path, result: job_files.Result) -> None:
    """Store *result* atomically and durably; wait for disk space if necessary."""
    while True:
        try:
            return _write_result(path, sealed(msgspec.json.encode(result)))
        except OSError as error:
            if error.errno not in lossy.NO_ROOM:
                raise
            print(f"host: {path} can't be stored: {error}; trying again in {LOOK_AGAIN_S:.0f} s", file=sys.stderr)
        time.sleep(LOOK_AGAIN_S)


def _write_result(path: Path, body: bytes) -> None:
    part = path.with_suffix(".part")
    # Overwrite the reserved bytes; a new file would need new space.
    with open(part, "r+b" if part.exists() else "wb", opener=open_private) as stream:
        stream.write(body)
        stream.flush()
        stream.truncate(len(body))
        os.fsync(stream.fileno())
    part.replace(path)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
