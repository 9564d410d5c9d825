"""Protocol version, capabilities, and names of headers.

Compatibility (docs/protocol.md): a newer minor version only adds. The decoder ignores unknown *fields* and refuses unknown *enum
values* (such as an offer kind). A different major version is :data:`OUTDATED <ProblemCode>`.
"""

from __future__ import annotations

from enum import Enum

MAJOR = 1
MINOR = 0
PROTOCOL_VERSION = f"{MAJOR}.{MINOR}"

MARKER_HEADER = "airflow-remote-protocol"
"""On every request and every response; its value is the sender's protocol version. A response without it does not come from
central, whatever its status (a proxy's login page, a load balancer's 502)."""

PROBLEM_HEADER = "airflow-remote-problem"
"""On every error that central itself returns; its value is a :class:`~.errors.ProblemCode`. It distinguishes central's 409 from
the Execution API's 409 that the gateway passes on."""

EPOCH_HEADER = "airflow-remote-epoch"
"""On every request about a job: the epoch of the worker's lease."""

SESSION_HEADER = "airflow-remote-session"
"""On every request except `enrol` and `session`: the worker's session."""


class Capability(str, Enum):
    """An optional part of the protocol's major version. Each end uses only the capabilities that both ends name."""

    TASK = "task"
    """Runs `ExecuteTask` workloads."""
    CALLBACK = "callback"
    """Runs `ExecuteCallback` workloads."""
    CONNECTION_TEST = "connection-test"
    """Runs `TestConnection` workloads."""
    TRIGGER = "trigger"
    """Hosts triggers of deferred tasks (`POST jobs/{id}/event`, `POST logs`)."""
    GZIP_LOG = "gzip-log"
    """Log bodies may be gzip-compressed."""
    RESTART = "restart"
    """The worker restarts its daemon when its intent requires it; its jobs keep running."""
    WORKER_LOG = "own-log"
    """The worker sends its own log (`POST log`)."""
    USAGE = "usage"
    """The worker reports the resources that its jobs and its machine use, while it has jobs (`POST usage`)."""
    RUNTIME = "runtime"
    """The worker reports the runtime of its tasks, and whether it can host them (`POST runtime`)."""
    BUNDLES = "bundles"
    """The worker fetches the code of jobs from central (`GET trees/{digest}/pack`)."""
    RUNTIMES = "runtimes"
    """The worker fetches the runtimes of its tasks from central, makes them ready and reports them (`POST inventory`)."""
    RELEASES = "releases"
    """The worker fetches releases of its own software from central, and changes to them (`POST inventory`)."""


class VersionMismatch(ValueError):
    """The other end speaks a different major version."""


def check_version(theirs: str) -> tuple[int, int]:
    """Return the other end's (major, minor).

    Raises:
        VersionMismatch: not a version, or another major version.
    """
    try:
        major, minor = (int(part) for part in theirs.split(".", 1))
    except ValueError:
        raise VersionMismatch(f"{theirs[:40]!r} is not a protocol version such as {PROTOCOL_VERSION!r}") from None
    if major != MAJOR:
        raise VersionMismatch(f"the other end speaks protocol {major}.{minor}, this one speaks {PROTOCOL_VERSION}")
    return major, minor


def agree(ours: frozenset[Capability], theirs: list[str]) -> frozenset[Capability]:
    """Return the capabilities that both ends have. Unknown names are ignored."""
    return frozenset(c for c in ours if c.value in theirs)
