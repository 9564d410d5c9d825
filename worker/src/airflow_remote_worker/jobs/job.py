"""One lease while this daemon lives: what the supervisor, the shipper and the reporter tell each other about it."""

from __future__ import annotations

from dataclasses import dataclass, field

import anyio
from airflow_remote_protocol.messages import Offer, Report, Stop

from airflow_remote_worker.jobs.outbox_reader import OutboxReader
from airflow_remote_worker.lease import Lease
from airflow_remote_worker.state.spool import JobDir, ShimRecord


@dataclass(eq=False)
class Job:
    """A lease, its directory, and the events of its life."""

    lease: Lease
    offer: Offer
    dir: JobDir
    outbox: OutboxReader = field(init=False)
    """What its task wrote and central has not heard yet."""
    shim: ShimRecord | None = None
    site_code: str = ""
    """MD5 of its Dag file here, where it is not the one that central parsed."""
    code_note: str = ""
    """What people should know about that; for its log."""
    stop: Stop | None = None
    """The stop it was given, if any."""
    report: Report | None = None
    """How it ended, once it has; also where the disk had no room for `report.json`."""
    stopped: anyio.Event = field(default_factory=anyio.Event)
    started: anyio.Event = field(default_factory=anyio.Event)
    """Its shim is known (or it never will be: see *ended*)."""
    ended: anyio.Event = field(default_factory=anyio.Event)
    """Over: its shim has gone, and its report is known."""
    superseded: anyio.Event = field(default_factory=anyio.Event)
    """Not ours any more: nothing of it is wanted."""
    delivered: anyio.Event = field(default_factory=anyio.Event)
    """It has ended and central has heard its whole outbox; nobody writes its log any more."""
    shipped: anyio.Event = field(default_factory=anyio.Event)
    """Central has all of its log (or will never take the rest)."""
    closed: anyio.Event = field(default_factory=anyio.Event)

    def __post_init__(self) -> None:
        self.outbox = OutboxReader(self.dir.path)
