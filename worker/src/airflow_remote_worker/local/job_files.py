"""Files and environment variables that the daemon shares with shims and trigger hosts: their input and their results."""

from __future__ import annotations

import msgspec
from airflow_remote_protocol.execution import DEFAULT_BODY_BYTES

JOB_MARK = "AIRFLOW_REMOTE_JOB"
"""Environment variable of every process that a job starts: `<job id>.<epoch>`. The daemon finds them by it without a shim."""


TASK_SETTINGS = "AIRFLOW_REMOTE_TASK_SETTINGS"
"""Environment variable of a zygote, or a shim without one: central's settings for tasks, a JSON object by `section.option`."""


class JobSpec(msgspec.Struct, frozen=True):
    """`job.json` in a job directory: the shim's input. Written by the daemon before the shim starts.

    The job directory also holds: `task.log` (JSON lines, written by the shim; the daemon appends only before the shim starts or
    after it has ended), `outbox` (see :mod:`.outbox_file`), `result.json` (:class:`Result`, written last, atomically), `shim.log`
    (stdout/stderr of the shim itself). Only *key* is secret: it opens the local gateway for this job.
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
    """Directory of the job's bundle on this machine; empty for a job without a bundle."""
    kind: str = "task"
    """A `JobKind` value of the protocol."""
    stop_after_s: float = 0.0
    """How long after the last contact with central the shim must stop the job."""
    contact_at: float = 0.0
    """When the last contact known to the daemon began, by :func:`.boottime.now`."""
    contact_path: str = ""
    """The file to which the daemon writes later contacts; empty: the shim does not watch the time without contact."""
    run_as_user: str = ""
    """The user that the job's code runs as; empty: the shim's user."""
    body_bytes: int = DEFAULT_BODY_BYTES
    """Central's limit for the body of an Execution API call when the job was taken."""
    site_code: str = ""
    """MD5 of the Dag file if it differs from the one that central parsed; else empty."""
    code_note: str = ""
    """A note for users about that difference, or about central's choice of the tree."""
    tree: str = ""
    """The tree that *bundle_path* belongs to, which must stay while the job runs; empty: the site's own directory."""
    runtime: str = ""
    """The tree of the runtime that it runs in, which must stay too; empty: the site's own."""
    signed: bool = False
    """Whether the site requires signed code: a callback must then be a function of the code in *bundle_path*."""
    runtime_name: str = ""
    """The name that central has for it; empty: the site's own."""
    release: str = ""
    """The tree of the worker's release whose modules the shim uses, which must stay too; empty: the installed one."""


CANARY_SPEC = "canary.json"
"""A process whose directory has this file runs the canary (:mod:`airflow_remote_worker.shim.canary`), not a job."""


class CanaryResult(msgspec.Struct, frozen=True):
    """`result.json` of a canary: whether the runtime can host tasks, and its versions."""

    trouble: str = ""
    """Why the runtime can't host tasks; empty: it can."""
    airflow: str = ""
    """The version, as the next two; empty: not installed."""
    task_sdk: str = ""
    python: str = ""
    watched: list[str] = []
    """Files and directories whose change means that the runtime has changed."""


HOST_SPEC = "host.json"
"""A process whose directory has this file is a trigger host, not a job."""


class HostSpec(msgspec.Struct, frozen=True):
    """`host.json`: the input of a trigger host, except its triggers, which it receives over the socket."""

    host_id: str
    key: str
    socket_path: str
    worker_name: str
    bundle_name: str
    bundle_path: str
    run_as_user: str = ""
    """The user that the triggers run as; empty: the host's user."""
    code: str = ""
    """Fingerprint of the bundle's code and of central's settings for tasks when the host started. Only the daemon compares it."""
    contact_path: str = ""
    """The file to which the daemon writes the time of its last contact with central."""
    tree: str = ""
    """As in :class:`JobSpec`, also the next two."""
    runtime: str = ""
    release: str = ""
    signed: bool = False


class Result(msgspec.Struct, frozen=True):
    """`result.json`: how the job ended, written by its shim."""

    exit_code: int
    final_state: str
    stopped: bool = False
    """Whether it ended because of a :class:`~.frames.Stop`."""
    error: str = ""
    """Why the shim could not host the task (an exception of the supervisor), for users to read."""
    begun: bool | None = None
    """Whether the task's own code began. False: the task failed before that, although central had let it start. None: unknown."""
