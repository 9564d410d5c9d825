"""Files and variables that the daemon, a shim and a trigger host share: what each must know, and how it ended."""

from __future__ import annotations

import msgspec
from airflow_remote_protocol.execution import UNTOLD_BODY_BYTES

JOB_MARK = "AIRFLOW_REMOTE_JOB"
"""Environment variable of all that a job starts: `<job id>.<epoch>`. It finds them even when their shim can't look any more."""


TASK_SETTINGS = "AIRFLOW_REMOTE_TASK_SETTINGS"
"""Environment variable of a zygote, or a shim without one: central's settings for tasks, a JSON object by `section.option`."""


class JobSpec(msgspec.Struct, frozen=True):
    """`job.json` in a job directory: all that the shim must know. Written by the daemon before the shim starts.

    The job directory also holds: `task.log` (JSON lines, written by the shim; the daemon appends only before the shim starts or
    after it has gone), `outbox` (see :mod:`.outbox`), `result.json` (:class:`Result`, written last, atomically), `shim.log`
    (stdout/stderr of the shim itself). Nothing here is secret but *key*, which opens the local gateway for this job alone.
    """

    job_id: str
    key: str
    socket_path: str
    """Of the daemon's local gateway (unix socket)."""
    worker_name: str
    """Shown as the task's hostname in Airflow."""
    queue: str
    workload: msgspec.Raw
    """The protocol's workload of this kind as JSON."""
    bundle_path: str
    """Where the Dags of the job's bundle are on this machine; empty for a job without a bundle."""
    kind: str = "task"
    """A `JobKind` value of the protocol."""
    stop_after_s: float = 0.0
    """How long after the last contact with central the job must be stopped here."""
    contact_at: float = 0.0
    """When the last contact began that the daemon knew of, by :func:`.boottime.now`."""
    contact_path: str = ""
    """Where the daemon writes later ones; empty: the shim doesn't count."""
    run_as_user: str = ""
    """As whom the job's code runs; empty: as the shim does."""
    body_bytes: int = UNTOLD_BODY_BYTES
    """How large the body of an Execution API call may be, as central said when the job was taken."""
    site_code: str = ""
    """MD5 of a Dag file that is not the one that central parsed; empty: it is."""
    code_note: str = ""
    """What people should know about that."""


CANARY_SPEC = "canary.json"
"""In a directory that a process is started for: it runs the canary (:mod:`.canary`), no job."""


class CanaryResult(msgspec.Struct, frozen=True):
    """`result.json` of a canary: whether the runtime can host tasks, and what it is."""

    trouble: str = ""
    """Why it can't; empty: it can."""
    airflow: str = ""
    """Versions; empty: not installed."""
    task_sdk: str = ""
    python: str = ""
    watched: list[str] = []
    """Files and directories whose change means that the runtime has changed."""


HOST_SPEC = "host.json"
"""In a directory that the zygote is to start a process for: it is a trigger host, not a job."""


class HostSpec(msgspec.Struct, frozen=True):
    """`host.json`: all that a trigger host must know. Its triggers are in no file: they come over the socket."""

    host_id: str
    key: str
    socket_path: str
    worker_name: str
    bundle_name: str
    bundle_path: str
    run_as_user: str = ""
    """As whom the triggers run; empty: as the host does."""
    code: str = ""
    """The state of the bundle's code, and of central's settings for tasks, when the host started; only the daemon compares it."""
    contact_path: str = ""
    """Where the daemon writes when it last had contact with central."""


class Result(msgspec.Struct, frozen=True):
    """`result.json`: how the job ended, as its shim saw it."""

    exit_code: int
    final_state: str
    stopped: bool = False
    """It ended because of a :class:`Stop`."""
    error: str = ""
    """Why the shim could not host the task (an exception of the supervisor), for people."""
    begun: bool | None = None
    """Whether the task's own code has begun. False: it failed before, although central had let it start. None: unknown."""
