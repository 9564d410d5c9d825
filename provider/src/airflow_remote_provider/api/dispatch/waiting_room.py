"""Parked polls, in memory only. A parked poll uses no database connection, thread or database session."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from dataclasses import dataclass, field

from airflow_remote_protocol.messages import Intent, Offer, Runtimes, Stop

from airflow_remote_provider.api.planned_runtimes import ReleaseNews
from airflow_remote_provider.ledger.workers import WorkerRecord

RETURNS_PER_S = 200
"""How many polls per second a process that shuts down sends to the next one; that one can answer several times as many."""
LONGEST_PAUSE_S = 5.0
"""A worker receives no stops while it pauses."""


@dataclass(frozen=True)
class News:
    """The reason to answer a parked poll early; *pause_s*: how long its worker should wait before the next poll."""

    offers: list[Offer] = field(default_factory=list)
    stops: list[Stop] = field(default_factory=list)
    intent: Intent | None = None
    runtimes: Runtimes | None = None
    release: ReleaseNews | None = None
    pause_s: float = 0.0


@dataclass(eq=False)
class Parked:
    """One open poll. It is answered at most once: the first to set *answer* wins."""

    worker: WorkerRecord
    free_slots: int
    stoppable: frozenset[tuple[str, int]]
    """(job, epoch) of the jobs that the worker holds and was not asked to stop yet."""
    intent_revision: int
    answer: asyncio.Future[News | Exception]
    free_triggers: int = 0
    runtimes_revision: str | None = None
    """Of the list of runtimes that the worker has received; None: it takes none from central."""
    release_serial: int | None = None
    """Of the release that the worker was named; 0: none was. None: it takes none from central."""

    @property
    def is_waiting(self) -> bool:
        return not self.answer.done()

    def reply(self, news: News | Exception) -> bool:
        """Answer the poll; return False if it was answered or abandoned before, so that nobody receives the news."""
        if self.answer.done():
            return False
        self.answer.set_result(news)
        return True


class WaitingRoom:
    """All parked polls of this process, one per worker."""

    def __init__(self) -> None:
        self._parked: dict[str, Parked] = {}
        self._closed = False

    def __iter__(self) -> Iterator[Parked]:
        return iter([parked for parked in self._parked.values() if parked.is_waiting])

    def __len__(self) -> int:
        return len(self._parked)

    def get(self, worker_id: str) -> Parked | None:
        parked = self._parked.get(worker_id)
        return parked if parked is not None and parked.is_waiting else None

    def park(self, parked: Parked) -> None:
        """Add a poll; answer an older one of the same worker with an empty reply."""
        older = self._parked.get(parked.worker.id)
        if older is not None:
            older.reply(News())
        self._parked[parked.worker.id] = parked
        if self._closed:
            parked.reply(News())

    def leave(self, parked: Parked) -> None:
        """Remove a poll that is over. From here on it can't be answered."""
        parked.answer.cancel()
        if self._parked.get(parked.worker.id) is parked:
            del self._parked[parked.worker.id]

    def close(self) -> None:
        """Answer every poll now, and all later ones at once: this process is shutting down."""
        self._closed = True
        # Another process receives all of them: spread them over time.
        longest_s = min(LONGEST_PAUSE_S, len(self._parked) / RETURNS_PER_S)
        for parked in list(self._parked.values()):
            parked.reply(News(pause_s=random.uniform(0.0, longest_s)))
