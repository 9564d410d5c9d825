"""The state of one trigger that this worker holds. There may be thousands, so it is small."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

import anyio
from airflow_remote_protocol.messages import Decline, Report, Stop, TriggerEvent

from airflow_remote_worker.lease import Lease
from airflow_remote_worker.triggers.log import PendingLog
from airflow_remote_worker.triggers.spool import TriggerDir

if TYPE_CHECKING:
    from airflow_remote_worker.triggers.host import TriggerHost

Ending = TriggerEvent | Decline | Report
"""The end of a trigger as it is reported to central: its event, its return to the queue, or that it can't start."""


class Stage(Enum):
    """The stage of a trigger on this worker. Stages only advance, except that a trigger may start again."""

    STARTING = "starting"
    """Its code is located, its offer accepted, its host started."""
    ADOPTED = "adopted"
    """An earlier daemon started it; its host has not connected yet."""
    HOSTED = "hosted"
    """A host runs it, or will be ordered to when it connects."""
    CANCELLING = "cancelling"
    """Its host was ordered to end it."""
    ENDED = "ended"
    """It does not run. Its ending or its log may still be undelivered."""


@dataclass(eq=False, slots=True)
class Trigger:
    """A lease, its directory, its stage and its end."""

    lease: Lease
    dir: TriggerDir
    log: PendingLog
    queue: str
    stop_after_s: float
    stage: Stage = Stage.STARTING
    host: TriggerHost | None = None
    host_id: str = ""
    """Of its present or last host, the only one whose messages about it are accepted."""
    starting: anyio.CancelScope | None = None
    """Cancels its start while it starts."""
    stop: Stop | None = None
    """The stop that it received, if any."""
    runs_on_kill: bool = False
    """Whether it is cancelled because a user acted."""
    hand_back: str = ""
    """Why it returns to the queue once it has been cancelled; empty if it does not."""
    ending: Ending | None = None
    """Its end, until central has acknowledged it."""
    has_fired: bool = False
    ended_at: float = 0.0
    """When it ended (monotonic), or when this daemon found that it had."""
    log_is_open: bool = False
    """Whether its host may still send lines of its log: its code may run on after its event."""
    is_stored: bool = True
    """Whether the event is on disk. While it isn't, because the disk is full, its host keeps it."""
