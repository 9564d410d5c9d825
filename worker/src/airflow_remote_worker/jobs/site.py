"""The parts of the worker's configuration and state that every job needs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from airflow_remote_protocol.execution import DEFAULT_BODY_BYTES
from airflow_remote_protocol.messages import Offer

from airflow_remote_worker.code.acceptance import accept_code
from airflow_remote_worker.code.bundles import BundleCode
from airflow_remote_worker.config import Config


class RuntimeOfJob(Protocol):
    """Makes sure that the runtime of a job is here. Implemented by :class:`~.runtimes.SentRuntimes`."""

    async def ensure(self, offer: Offer, note: Callable[[str], None]) -> Path | None:
        """Return the runtime's interpreter, which other users must reach if they run the job; None: it is the site's own.

        Its files are held for the offer's lease from now on.

        Raises:
            RuntimeGone: it isn't here; the text says why.
        """
        ...


class RuntimeGone(Exception):
    """The runtime of a job is not on this machine; the text says why and what to do."""


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
    check_code: Callable[[str, str], Awaitable[str]] = accept_code
    """From a tree's digest and its bundle: why the site does not accept that code; empty: it does. Raises as :data:`.Check`."""
    needs_signed_code: Callable[[], bool] = lambda: False
    """Whether code of central must be signed, and callbacks be functions of it."""
    runtimes: RuntimeOfJob | None = None
    """The runtimes that central sends; None: jobs run in the site's own."""
    release: str = ""
    """The tree of the release that this worker runs; empty: the one that the site has installed."""
