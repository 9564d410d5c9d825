"""Limits how much of one API process a single worker may use: calls per second, and calls about jobs at once.

An honest worker does not reach the limits. One that was taken over, or is broken, gets `busy`, keeps its jobs and retries; it
can't block the process for others, nor make the database record denials as fast as it can ask.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from airflow_remote_protocol.errors import ProblemCode

from airflow_remote_provider.api.problems import Refusal

AT_ONCE = 128
"""Calls about jobs that one worker may have under way until their answers have been sent: each task has one or two."""
UNKNOWN_CALLS_PER_S = 20.0
"""How many calls with an unknown credential, or without the worker's certificate, one source may make in a second. Workers behind
a common proxy do not reach this: each is unknown to an API process only once."""
BURST_S = 10.0
"""How many seconds' worth of calls may arrive at once: a worker that returns after an outage has much to report."""
MOST_OF_BURST = 0.75
"""The most that a single call is charged, as a part of a burst."""
WORKER_LOG_CALLS_PER_S = 2.0
"""How often one worker may send chunks of its worker log. It does so every two seconds while a user follows the log."""
TRIGGER_LOG_CALLS_PER_S = 1.0
"""How often one worker may send its triggers' logs, all of them in one call. A busy worker does so every two seconds."""
INVENTORY_CALLS_PER_S = 1.0
"""How often one worker may report the trees that it holds: they change when it has fetched one."""
MOST_KEPT = 10_000
"""Workers that are remembered before those without recent calls are forgotten."""


class RateLimits:
    """The calls of all workers of this process. Used on the event loop only."""

    def __init__(self, per_s: float, *, whose: str = "this worker") -> None:
        """*per_s*: calls per second of one worker; 0: no limit. *whose*: who makes the calls, for the text of the refusal."""
        self._per_s = per_s
        self._whose = whose
        self._spent: dict[str, tuple[float, float]] = {}
        """By worker: the time of its last call, and the calls charged to it at that time."""
        self._under_way: dict[str, int] = {}

    def take(self, worker_id: str, *, cost: float = 1.0) -> None:
        """Charge a worker for a call that costs central as much as *cost* calls; a single such call always passes.

        Raises:
            Refusal: `busy`: the worker exceeds its rate limit.
        """
        if not self._per_s:
            return
        cost = min(cost, MOST_OF_BURST * self._per_s * BURST_S)
        now = asyncio.get_running_loop().time()
        since, spent = self._spent.get(worker_id, (now, 0.0))
        spent = max(0.0, spent - (now - since) * self._per_s) + cost
        if spent > self._per_s * BURST_S:
            text = f"{self._whose} makes more than {self._per_s:g} calls per second, or sends long lists of jobs; try again later"
            raise Refusal(ProblemCode.BUSY, text)
        if len(self._spent) >= MOST_KEPT:
            self._forget(now)
        self._spent[worker_id] = now, spent

    @contextmanager
    def place(self, worker_id: str) -> Iterator[None]:
        """Count a call about a job while it is under way.

        Raises:
            Refusal: `busy`: this worker has :data:`AT_ONCE` under way.
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
