"""Triggers on disk: one directory per lease, `triggers/<job id>.<epoch>/`, removed when central has everything.

| file | means |
|---|---|
| `offer.json` | we hold this lease. One copy: if it is damaged, central queues the trigger again, because we do not list it |
| `log.<offset>` | log lines that central does not have; the first byte is at that offset of the lease's log |
| `event.json` | the trigger has fired, and its event is not acknowledged yet |

Files are not synced: after a power cut a trigger starts again, as it would on another worker.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from airflow_remote_protocol.messages import Offer, TriggerEvent

from airflow_remote_worker.errors import Damaged
from airflow_remote_worker.lease import Lease
from airflow_remote_worker.state.files import put_aside, read, store

log = logging.getLogger(__name__)


class TriggerDir:
    """The directory of one lease."""

    __slots__ = ("lease", "path")

    def __init__(self, path: Path, lease: Lease) -> None:
        self.path = path
        self.lease = lease

    def store_offer(self, offer: Offer) -> None:
        """Store *offer*.

        Raises:
            FileExistsError: we had this lease before.
            OSError: the disk can't store it; nothing is left behind.
        """
        self.path.mkdir(mode=0o700)
        try:
            store(self.path / "offer.json", offer)
        except OSError:
            self.remove()
            raise

    def offer(self) -> Offer:
        """Return the stored offer.

        Raises:
            Damaged: it is missing, unreadable, or belongs to another lease.
        """
        try:
            offer = read(Offer, self.path / "offer.json")
        except FileNotFoundError:
            raise Damaged(f"{self.path} has no offer.json: the daemon died while it stored the trigger") from None
        if Lease(offer.job_id, offer.epoch) != self.lease:
            raise Damaged(f"{self.path}/offer.json is about {offer.job_id} (epoch {offer.epoch})")
        return offer

    def store_event(self, event: TriggerEvent) -> None:
        store(self.path / "event.json", event)

    def event(self) -> TriggerEvent | None:
        """Return the stored event; None if the trigger has not fired, or if its event can't be read, upon which it runs again."""
        try:
            return read(TriggerEvent, self.path / "event.json")
        except FileNotFoundError:
            return None
        except Damaged as error:
            log.error("trigger %s: %s; the trigger starts again", self.lease, error)
            return None

    def remove(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)


class TriggerSpool:
    """All trigger directories of this worker."""

    def __init__(self, root: Path, *, quarantine: Path) -> None:
        self._root = root
        self._put_aside = partial(put_aside, quarantine=quarantine)

    def of(self, lease: Lease) -> TriggerDir:
        """Return the directory of *lease*, which may not exist.

        Raises:
            ValueError: central's job id would name a path outside of our directory.
        """
        if not lease.job_id.replace("-", "").isalnum():
            raise ValueError(f"job id {lease.job_id[:80]!r} is not an id")
        return TriggerDir(self._root / f"{lease.job_id}.{lease.epoch}", lease)

    def __iter__(self) -> Iterator[TriggerDir]:
        """Yield every trigger directory; other entries are skipped."""
        for path in sorted(self._root.iterdir()):
            job_id, _, epoch = path.name.rpartition(".")
            with contextlib.suppress(OSError):
                if job_id and epoch.isdecimal() and epoch.isascii() and path.is_dir():
                    yield TriggerDir(path, Lease(job_id, int(epoch)))

    def put_aside(self, trigger: TriggerDir) -> object:
        """Move the whole directory into quarantine; return where it is now."""
        return self._put_aside(trigger.path)
