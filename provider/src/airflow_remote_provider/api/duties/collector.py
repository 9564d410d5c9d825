"""Deletes code that nobody needs any more: old editions, trees, blobs, and bytes that a publisher left behind.

One API process at a time does it, apart from the other duties: an object store may take minutes.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable
from datetime import timedelta
from typing import TypeVar

from sqlalchemy.orm import Session

from airflow_remote_provider.api.pool import LedgerPool
from airflow_remote_provider.api.reports import faults
from airflow_remote_provider.compat import database_now
from airflow_remote_provider.ledger import duty, sweep, trees
from airflow_remote_provider.ledger.sweep import Swept
from airflow_remote_provider.settings import Settings
from airflow_remote_provider.stores.blobs import BlobStore
from airflow_remote_provider.stores.blobs.opened import BlobStores

T = TypeVar("T")

ACTION = "delete code that nobody needs any more"
FIRST_AFTER_S = 60.0
"""After the start of the process, which has more urgent work."""
EVERY_S = 3600.0
LASTS = timedelta(seconds=2 * EVERY_S)
LEFTOVERS_EVERY_S = 86_400.0
LEFT_AFTER_S = 86_400.0
"""How old bytes without a blob must be. A publisher notes them within minutes; clocks may differ by hours."""
PAUSE_S = 0.2
"""Between two batches, so that other work of the database comes in between."""


class Collector:
    """The duty named `code`."""

    def __init__(self, pool: LedgerPool, settings: Settings) -> None:
        self._pool = pool
        self._tree_days = settings.tree_days
        self._stores = BlobStores(settings.blob_store)
        self._holder = str(uuid.uuid4())
        self._leftovers_at = -LEFTOVERS_EVERY_S

    async def run(self) -> None:
        """Collect until cancelled. A failure is reported once, and the work is repeated an hour later."""
        await asyncio.sleep(FIRST_AFTER_S)
        while True:
            try:
                if await self._pool.call(duty.take_duty, "code", self._holder, lasts=LASTS):
                    await self.collect()
            except Exception as error:  # also a bug in this package, or in the file system of an object store
                faults.report_failure(ACTION, error)
            else:
                faults.report_success(ACTION)
            await asyncio.sleep(EVERY_S)

    async def collect(self) -> None:
        """Delete all that can be deleted now, and once a day what was left behind."""
        while not (swept := await self._pool.call(self._sweep)).is_all:
            await self._delete(swept.places)
            await asyncio.sleep(PAUSE_S)
        if time.monotonic() - self._leftovers_at >= LEFTOVERS_EVERY_S:
            self._leftovers_at = time.monotonic()
            for store in self._stores.all:
                await self._delete_leftovers(store)

    def _sweep(self, session: Session) -> Swept:
        return sweep.sweep(session, database_now(session), tree_days=self._tree_days)

    async def _delete(self, places: list[str]) -> None:
        """Delete bytes whose blobs are gone. What fails here is left behind, and deleted a day later."""
        for store, some in self._stores.split(places):
            if store.needs_session:
                await self._pool.call(store.delete, some)
            else:
                await asyncio.to_thread(store.delete, None, some)

    async def _delete_leftovers(self, store: BlobStore) -> None:
        before_s = time.time() - LEFT_AFTER_S
        if store.needs_session:
            await self._pool.call(_delete_leftovers_of_database, store, before_s)
            return
        listing = store.places(None, before_s=before_s)
        while places := await asyncio.to_thread(_next_or_none, listing.__next__):
            unknown = await self._pool.call(trees.unknown_places, places)
            await asyncio.to_thread(store.delete, None, unknown)


def _delete_leftovers_of_database(session: Session, store: BlobStore, before_s: float) -> None:
    for places in store.places(session, before_s=before_s):
        store.delete(session, trees.unknown_places(session, places))


def _next_or_none(advance: Callable[[], T]) -> T | None:
    """Return the next item; None at the end. A `StopIteration` can't leave a thread."""
    try:
        return advance()
    except StopIteration:
        return None
