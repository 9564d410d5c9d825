"""Detects changes for all streams of this process at once. It makes no queries while no stream is open."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from airflow_remote_provider.api.pool import LedgerPool
from airflow_remote_provider.ledger.errors import RetryLater
from airflow_remote_provider.ledger.views.pulse import Pulse, Subject, take_pulse

log = logging.getLogger(__name__)

EVERY_S = 1.0
RETRY_S = 10.0
"""After a database failure. Pages poll meanwhile."""
MOST_STREAMS = 500
MOST_OF_ONE = 20
"""Streams of one user: one for each open window."""


class Stream:
    """The changes that were not sent to one client yet."""

    def __init__(self) -> None:
        self.is_open = True
        self._changed: set[Subject] = set()
        self._wakeup = asyncio.Event()

    def notify(self, changed: set[Subject]) -> None:
        self._changed |= changed
        self._wakeup.set()

    def close(self) -> None:
        self.is_open = False
        self._wakeup.set()

    async def changed(self, timeout_s: float) -> set[Subject]:
        """Wait for a change; return all changes since the last call. Empty after *timeout_s*, or if the stream was closed."""
        try:
            await asyncio.wait_for(self._wakeup.wait(), timeout_s)
        except asyncio.TimeoutError:  # not the built-in one before Python 3.11
            return set()
        self._wakeup.clear()
        changed, self._changed = self._changed, set()
        return changed


class Watch:
    """All streams of this process, and the one loop that queries for them."""

    def __init__(self, pool: LedgerPool) -> None:
        self._pool = pool
        self._streams: set[Stream] = set()
        self._of_user: Counter[str] = Counter()
        self._looking: asyncio.Task[None] | None = None
        self._closed = False

    def check_room(self, user: str) -> None:
        """Raises: RetryLater."""
        if self._closed:
            raise RetryLater("this API server is shutting down; try again")
        if len(self._streams) >= MOST_STREAMS or self._of_user[user] >= MOST_OF_ONE:
            count = f"you have {self._of_user[user]} open streams, and there are {len(self._streams)} in all"
            raise RetryLater(f"{count}; close some, or poll every few seconds instead")

    @contextmanager
    def stream(self, user: str) -> Iterator[Stream]:
        """Open a stream."""
        stream = Stream()
        stream.is_open = not self._closed
        self._streams.add(stream)
        self._of_user[user] += 1
        if self._looking is None:
            self._looking = asyncio.create_task(self._look(), name="remote-pulse")
        else:
            stream.notify(set(Subject))  # for changes since its page was read; a new loop does this itself
        try:
            yield stream
        finally:
            self._streams.discard(stream)
            self._of_user -= Counter([user])
            if not self._streams:
                self._stop_looking()

    def close(self) -> None:
        """Close all streams, and accept no new one: this process is shutting down."""
        self._closed = True
        for stream in self._streams:
            stream.close()
        self._stop_looking()

    def _stop_looking(self) -> None:
        if self._looking is not None:
            self._looking.cancel()
            self._looking = None

    async def _look(self) -> None:
        before: Pulse | None = None
        while True:
            try:
                now = await self._pool.call(take_pulse)
            except Exception as error:  # any error, since without this loop the streams would only look alive
                log.warning("Can't read from the database what has changed (%s); trying again", error)
                before = None
                await asyncio.sleep(RETRY_S)
                continue
            changed = {subject for subject in Subject if before is None or before[subject] != now[subject]}
            before = now
            if changed:
                for stream in self._streams:
                    stream.notify(changed)
            await asyncio.sleep(EVERY_S)
