"""One lease within this daemon: the state that the supervisor, the shipper and the reporter share about it."""

from __future__ import annotations

from dataclasses import dataclass, field

import anyio
from airflow_remote_protocol.messages import Offer, Report, Stop

from airflow_remote_worker.jobs.outbox_reader import OutboxReader
from airflow_remote_worker.lease import Lease
from airflow_remote_worker.state.spool import JobDir, ShimRecord


@dataclass(eq=False)
class Job:
    """A lease, its directory, and the events from its start to its end."""

    lease: Lease
    offer: Offer
    dir: JobDir
    outbox: OutboxReader = field(init=False)
    """The writes of its task that central has not received yet."""
    shim: ShimRecord | None = None
    site_code: str = ""
    """MD5 of its Dag file on this machine, if that differs from the file that central parsed; else empty."""
    code_note: str = ""
    """An explanation of the difference, or of central's choice of the tree, for the task's log."""
    code_source: str = ""
    """Where its code comes from, for the first line of the task's log; empty: the site's directory, and central sent nothing."""
    stop: Stop | None = None
    """The stop that it received, if any."""
    report: Report | None = None
    """How it ended; None while it runs. Set even if the disk had no room for `report.json`."""
    stopped: anyio.Event = field(default_factory=anyio.Event)
    started: anyio.Event = field(default_factory=anyio.Event)
    """Its shim is known, or it has ended without one (see *ended*)."""
    ended: anyio.Event = field(default_factory=anyio.Event)
    """Its shim has exited, and its report is known."""
    superseded: anyio.Event = field(default_factory=anyio.Event)
    """Its lease is no longer ours: nothing more about it is sent."""
    delivered: anyio.Event = field(default_factory=anyio.Event)
    """It has ended, and central has received its whole outbox. Its log does not grow any more."""
    shipped: anyio.Event = field(default_factory=anyio.Event)
    """Central has all of its log, or will never accept the rest."""
    declined: str = ""
    """Why the offer was returned to central, before anything was run; empty: it was not."""
    closed: anyio.Event = field(default_factory=anyio.Event)

    def __post_init__(self) -> None:
        self.outbox = OutboxReader(self.dir.path)
