"""Notices for all streams of this process at once that something has changed. While nobody listens it asks for nothing."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from airflow_remote_provider.api.pool import LedgerPool
from airflow_remote_provider.ledger.errors import NotYet
from airflow_remote_provider.ledger.views.pulse import Pulse, Subject, take_pulse

log = logging.getLogger(__name__)

EVERY_S = 1.0
RETRY_S = 10.0
"""After a failure of the database: pages read by themselves meanwhile."""
MOST_STREAMS = 500
MOST_OF_ONE = 20
"""Of one user: windows that he looks at."""


class Stream:
    """What one listener has not been told yet."""

    def __init__(self) -> None:
        self.is_open = True
        self._changed: set[Subject] = set()
        self._stir = asyncio.Event()

    def tell(self, changed: set[Subject]) -> None:
        self._changed |= changed
        self._stir.set()

    def close(self) -> None:
        self.is_open = False
        self._stir.set()

    async def changed(self, timeout_s: float) -> set[Subject]:
        """Return what has changed since the last time, as soon as something has; nothing after *timeout_s*, or at the end."""
        try:
            await asyncio.wait_for(self._stir.wait(), timeout_s)
        except asyncio.TimeoutError:  # before Python 3.11 another than the built-in one
            return set()
        self._stir.clear()
        changed, self._changed = self._changed, set()
        return changed


class Watch:
    """All streams of this process, and the one loop that looks for them."""

    def __init__(self, pool: LedgerPool) -> None:
        self._pool = pool
        self._streams: set[Stream] = set()
        self._of_user: Counter[str] = Counter()
        self._looking: asyncio.Task[None] | None = None
        self._closed = False

    def insist_on_room(self, user: str) -> None:
        """Raises: NotYet."""
        if self._closed:
            raise NotYet("this API server is shutting down; come again")
        if len(self._streams) >= MOST_STREAMS or self._of_user[user] >= MOST_OF_ONE:
            count = f"{self._of_user[user]} streams of yours are open, and {len(self._streams)} in all"
            raise NotYet(f"{count}; close some, or ask every few seconds instead")

    @contextmanager
    def stream(self, user: str) -> Iterator[Stream]:
        """Listen."""
        stream = Stream()
        stream.is_open = not self._closed
        self._streams.add(stream)
        self._of_user[user] += 1
        if self._looking is None:
            self._looking = asyncio.create_task(self._look(), name="remote-pulse")
        else:
            stream.tell(set(Subject))  # whatever has changed since its page was read; the loop begins with that by itself
        try:
            yield stream
        finally:
            self._streams.discard(stream)
            self._of_user -= Counter([user])
            if not self._streams:
                self._rest()

    def close(self) -> None:
        """End all streams, and let no new one begin: this process is shutting down."""
        self._closed = True
        for stream in self._streams:
            stream.close()
        self._rest()

    def _rest(self) -> None:
        if self._looking is not None:
            self._looking.cancel()
            self._looking = None

    async def _look(self) -> None:
        before: Pulse | None = None
        while True:
            try:
                now = await self._pool.call(take_pulse)
            except Exception as error:  # whatever it is: without this loop the streams would only look alive
                log.warning("Whether something has changed can't be read (%s); trying again", error)
                before = None
                await asyncio.sleep(RETRY_S)
                continue
            changed = {subject for subject in Subject if before is None or before[subject] != now[subject]}
            before = now
            if changed:
                for stream in self._streams:
                    stream.tell(changed)
            await asyncio.sleep(EVERY_S)
