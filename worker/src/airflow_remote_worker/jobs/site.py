"""The place where jobs run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from airflow_remote_protocol.execution import UNTOLD_BODY_BYTES

from airflow_remote_worker.config import Config


@dataclass(frozen=True)
class Site:
    """What jobs must know of where they are."""

    config: Config
    worker_name: str
    socket_path: Path
    contact_path: Path
    """Where the daemon writes when it last heard of central."""
    check_room: Callable[[], None] = lambda: None
    """Raises `NoRoom` if the disk should take no other job."""
    note_failure: Callable[[OSError], None] = lambda error: None
    """Told of writes that failed."""
    body_bytes: Callable[[], int] = lambda: UNTOLD_BODY_BYTES
    """Returns how large the body of an Execution API call may be."""
