"""The parts of the worker's configuration and state that every job needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from airflow_remote_protocol.execution import DEFAULT_BODY_BYTES

from airflow_remote_worker.code.bundles import BundleCode
from airflow_remote_worker.config import Config


@dataclass(frozen=True)
class Site:
    """The worker that jobs run on."""

    config: Config
    worker_name: str
    socket_path: Path
    contact_path: Path
    """The file in which the daemon stores the time of the last contact with central."""
    check_room: Callable[[], None] = lambda: None
    """Raises `NoRoom` if the disk has no room for another job."""
    note_failure: Callable[[OSError], None] = lambda error: None
    """Called with the error of each failed write."""
    body_bytes: Callable[[], int] = lambda: DEFAULT_BODY_BYTES
    """Returns the maximum size of the body of an Execution API call."""
    code: BundleCode | None = None
    """The code that central sends."""
