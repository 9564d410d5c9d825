"""Protocol version, capabilities, and the names of our headers.

Rules of agreement (docs/protocol.md): a newer minor version only adds; unknown *fields* are ignored by the decoder;
an unknown *meaning* (an enum value, an offer kind) is refused. A different major version is :data:`OUTDATED <ProblemCode>`.
"""

from __future__ import annotations

from enum import Enum

MAJOR = 1
MINOR = 0
PROTOCOL_VERSION = f"{MAJOR}.{MINOR}"

MARKER_HEADER = "airflow-remote-protocol"
"""On every request and every response; its value is the sender's protocol version. A response without it is not central's
word, whatever its status (a proxy's login page, a load balancer's 502)."""

PROBLEM_HEADER = "airflow-remote-problem"
"""On every error that central itself decides; its value is a :class:`~.errors.ProblemCode`. It tells our 409 from the
Execution API's 409 that the gateway passes on."""

EPOCH_HEADER = "airflow-remote-epoch"
"""On every request about a job: the epoch of the lease under which the worker speaks."""

SESSION_HEADER = "airflow-remote-session"
"""On every request but `enrol` and `session`: the session under which the worker speaks."""


class Capability(str, Enum):
    """What an end can do beyond the base of its major version. Each side uses only what both name."""

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
    """The worker starts its daemon anew when its intent says so; its jobs run on."""
    WORKER_LOG = "own-log"
    """The worker sends its own log (`POST log`)."""
    USAGE = "usage"
    """The worker tells what its jobs and its machine use while it has jobs (`POST usage`)."""
    RUNTIME = "runtime"
    """The worker reports what its tasks run in, and whether that can host them (`POST runtime`)."""


class VersionMismatch(ValueError):
    """The other end speaks a different major version."""


def check_version(theirs: str) -> tuple[int, int]:
    """Return the other end's (major, minor).

    Raises:
        VersionMismatch: not a version, or another major version than ours.
    """
    try:
        major, minor = (int(part) for part in theirs.split(".", 1))
    except ValueError:
        raise VersionMismatch(f"{theirs[:40]!r} is not a protocol version such as {PROTOCOL_VERSION!r}") from None
    if major != MAJOR:
        raise VersionMismatch(f"the other end speaks protocol {major}.{minor}, this one speaks {PROTOCOL_VERSION}")
    return major, minor


def agree(ours: frozenset[Capability], theirs: list[str]) -> frozenset[Capability]:
    """Return the capabilities both ends have; names we don't know are ignored."""
    return frozenset(c for c in ours if c.value in theirs)
