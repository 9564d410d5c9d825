"""Parked polls: who waits for work, in memory only. No database, no thread, no session while parked."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from dataclasses import dataclass, field

from airflow_remote_protocol.messages import Intent, Offer, Stop

from airflow_remote_provider.ledger.workers import WorkerRecord

RETURNS_PER_S = 200
"""How many polls of a process that ends may come to the next one in a second; it answers several times as many."""
LONGEST_PAUSE_S = 5.0
"""A worker that pauses hears of no stop."""


@dataclass(frozen=True)
class News:
    """Why a parked poll is answered before its time; *pause_s*: how long its worker should wait before the next."""

    offers: list[Offer] = field(default_factory=list)
    stops: list[Stop] = field(default_factory=list)
    intent: Intent | None = None
    pause_s: float = 0.0


@dataclass(eq=False)
class Parked:
    """One open poll. Answered at most once: whoever sets *answer* first wins."""

    worker: WorkerRecord
    free_slots: int
    stoppable: frozenset[tuple[str, int]]
    """(job, epoch) of what it holds and has not been told to stop yet."""
    intent_revision: int
    answer: asyncio.Future[News | Exception]
    free_triggers: int = 0

    @property
    def is_waiting(self) -> bool:
        return not self.answer.done()

    def tell(self, news: News | Exception) -> bool:
        """Answer the poll; False if it was answered or abandoned before (the news did not reach anybody)."""
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
        """Let a poll wait; an older one of the same worker ends with an empty reply."""
        older = self._parked.get(parked.worker.id)
        if older is not None:
            older.tell(News())
        self._parked[parked.worker.id] = parked
        if self._closed:
            parked.tell(News())

    def leave(self, parked: Parked) -> None:
        """The poll is over. From here on nothing can be told to it."""
        parked.answer.cancel()
        if self._parked.get(parked.worker.id) is parked:
            del self._parked[parked.worker.id]

    def close(self) -> None:
        """Answer every poll now and let none wait any more: this process is shutting down."""
        self._closed = True
        # Another process gets them all: not in one moment.
        longest_s = min(LONGEST_PAUSE_S, len(self._parked) / RETURNS_PER_S)
        for parked in list(self._parked.values()):
            parked.tell(News(pause_s=random.uniform(0.0, longest_s)))
