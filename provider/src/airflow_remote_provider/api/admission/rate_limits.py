"""How much of one API process a single worker may have: calls in a second, and calls about jobs at once.

An honest worker comes nowhere near. One that was taken over, or runs wild, gets `busy`, keeps what it has and comes back; it
can't take the process from the others, nor make the database write down denials as fast as it can ask.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from airflow_remote_protocol.errors import ProblemCode

from airflow_remote_provider.api.problems import Refusal

AT_ONCE = 128
"""Calls about its jobs that one worker may have under way, until their answers have been sent: each task has one or two."""
STRANGE_CALLS_PER_S = 20.0
"""How many calls with an unknown credential, or without the worker's certificate, one source may make in a second. The workers
behind a common proxy, each new to an API process once, come nowhere near."""
BURST_S = 10.0
"""How many seconds' worth of calls may come in one moment: a worker's return from an outage, with all that it has to tell."""
DEAREST = 0.75
"""Of what may come in one moment: as much as a single call is charged at most."""
WORKER_LOG_CALLS_PER_S = 2.0
"""How often one worker may send of its own log: one that is watched does so every two seconds."""
TRIGGER_LOG_CALLS_PER_S = 1.0
"""How often one worker may send the logs of its triggers, all of them in one call. A busy one does so every two seconds."""
FORGOTTEN = 10_000
"""So many workers are remembered before those that were quiet are forgotten."""


class RateLimits:
    """Of all workers of this process. Asked on the event loop only."""

    def __init__(self, per_s: float, *, whose: str = "this worker") -> None:
        """*per_s*: calls of one worker in a second; 0: any number. *whose*: who makes the calls, for the text of the refusal."""
        self._per_s = per_s
        self._whose = whose
        self._spent: dict[str, tuple[float, float]] = {}
        """By worker: when it called last, and how many of its calls that moment knew about."""
        self._under_way: dict[str, int] = {}

    def take(self, worker_id: str, *, cost: float = 1.0) -> None:
        """Count a call of this worker, or what costs central as much as *cost* calls; one such call always passes.

        Raises:
            Refusal: `busy`: it calls faster than anybody should.
        """
        if not self._per_s:
            return
        cost = min(cost, DEAREST * self._per_s * BURST_S)
        now = asyncio.get_running_loop().time()
        since, spent = self._spent.get(worker_id, (now, 0.0))
        spent = max(0.0, spent - (now - since) * self._per_s) + cost
        if spent > self._per_s * BURST_S:
            text = f"{self._whose} makes more than {self._per_s:g} calls a second, or longer ones; try again later"
            raise Refusal(ProblemCode.BUSY, text)
        if len(self._spent) >= FORGOTTEN:
            self._forget(now)
        self._spent[worker_id] = now, spent

    @contextmanager
    def place(self, worker_id: str) -> Iterator[None]:
        """Count a call about a job while it is under way.

        Raises:
            Refusal: `busy`: this worker has as many as it may.
        """
        under_way = self._under_way.get(worker_id, 0)
        if under_way >= AT_ONCE:
            raise Refusal(ProblemCode.BUSY, f"this worker has {AT_ONCE} calls about its jobs under way; try again later")
        self._under_way[worker_id] = under_way + 1
        try:
            yield
        finally:
            self._under_way[worker_id] -= 1
            if not self._under_way[worker_id]:
                del self._under_way[worker_id]

    def _forget(self, now: float) -> None:
        self._spent = {
            worker_id: (since, spent) for worker_id, (since, spent) in self._spent.items() if spent > (now - since) * self._per_s
        }
