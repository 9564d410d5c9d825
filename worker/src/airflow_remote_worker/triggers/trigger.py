"""One trigger that this worker holds: what is known of it, and where it stands. There may be thousands, so it is small."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

import anyio
from airflow_remote_protocol.messages import Decline, Report, Stop, TriggerEvent

from airflow_remote_worker.lease import Lease
from airflow_remote_worker.triggers.log import WaitingLog
from airflow_remote_worker.triggers.spool import TriggerDir

if TYPE_CHECKING:
    from airflow_remote_worker.triggers.host import TriggerHost

Ending = TriggerEvent | Decline | Report
"""What central must be told about the end of a trigger: its event; or that it goes back to the queue; or that it can't start."""


class Stage(Enum):
    """Where a trigger stands on this worker. Only forward, except that a trigger may start again."""

    STARTING = "starting"
    """Its code is looked for, its offer accepted, its host started."""
    ADOPTED = "adopted"
    """An earlier daemon started it; its host has not connected yet."""
    HOSTED = "hosted"
    """A host runs it, or is told to as soon as it connects."""
    CANCELLING = "cancelling"
    """Its host is told to end it."""
    ENDED = "ended"
    """Nothing of it runs. Its ending or its log may still be under way."""


@dataclass(eq=False, slots=True)
class Trigger:
    """A lease, its directory, and what became of it."""

    lease: Lease
    dir: TriggerDir
    log: WaitingLog
    queue: str
    stop_after_s: float
    stage: Stage = Stage.STARTING
    host: TriggerHost | None = None
    host_id: str = ""
    """Of its present or last host: what that one says of it counts."""
    starting: anyio.CancelScope | None = None
    """Around its start, to end that."""
    stop: Stop | None = None
    """The stop that it was given, if any."""
    runs_on_kill: bool = False
    """It is cancelled because a user acted."""
    hand_back: str = ""
    """Why it goes back to the queue once it has been cancelled; empty if it does not."""
    ending: Ending | None = None
    """What central has not been told yet."""
    has_fired: bool = False
    is_stored: bool = True
    """The event is on disk. If the disk is full its host keeps it, too."""
