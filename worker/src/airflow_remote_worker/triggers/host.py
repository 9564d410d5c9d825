"""One trigger host as the daemon sees it: its process, its connection and its triggers."""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import msgspec
from anyio.streams.memory import MemoryObjectSendStream

from airflow_remote_worker.gateway import JobAccess
from airflow_remote_worker.lease import SITE, Lease
from airflow_remote_worker.local import job_files
from airflow_remote_worker.state.spool import ShimRecord
from airflow_remote_worker.triggers.trigger import Trigger

TAIL = 2000
"""Bytes of a dead host's own log that are copied into the worker's log."""


@dataclass(frozen=True)
class HostedCode:
    """The bundle and the runtime that all triggers of one host share, and the user that its code runs as."""

    bundle_name: str
    bundle_path: str
    user: str
    tree: str = ""
    """The tree that the path belongs to; empty: the site's own directory."""
    runtime: str = SITE
    """The runtime that the host is started in."""


@dataclass(eq=False)
class TriggerHost:
    """A trigger host. Its directory has `host.json`, `shim.json` (the process) and `shim.log` (the output of the process)."""

    dir: Path
    spec: job_files.HostSpec
    process: ShimRecord
    since: float
    """When it was started or adopted (monotonic)."""
    is_alone: bool = False
    """It is on probation with a single trigger."""
    is_leaving: bool = False
    """It was ordered to leave, and gets no more triggers."""
    idle_since: float | None = None
    has_connected: bool = False
    """It has connected to this daemon."""
    completes_logs: bool = False
    """It sends the end of each trigger's log. A host that an older daemon started does not."""
    triggers: dict[Lease, Trigger] = field(default_factory=dict)
    accesses: dict[Lease, JobAccess] = field(default_factory=dict)
    """Of the triggers that have made calls."""
    open_calls: int = 0
    settled: anyio.Event = field(default_factory=anyio.Event)
    """Set when it has connected or died."""
    outgoing: MemoryObjectSendStream[msgspec.Struct] | None = None
    blocked_logged_at: float = -math.inf

    @property
    def code(self) -> HostedCode:
        spec = self.spec
        return HostedCode(spec.bundle_name, spec.bundle_path, spec.run_as_user, spec.tree, spec.runtime)

    def send(self, frame: msgspec.Struct) -> bool:
        """Send *frame* if the host is connected; return whether it was sent. The next connection makes up for a missed frame."""
        if self.outgoing is None:
            return False
        with contextlib.suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
            # The stream has no bound: it holds one frame per trigger and one answer per open call, and both are bounded.
            self.outgoing.send_nowait(frame)
            return True
        return False

    def log_tail(self) -> str:
        """Return the end of the process's output."""
        with contextlib.suppress(OSError):
            return (self.dir / "shim.log").read_bytes()[-TAIL:].decode("utf-8", "replace").strip()
        return ""
