"""Limits how many requests are under way and how many wait; the others get `busy`, each with its own time to retry.

After an outage a whole fleet calls at once. In an unbounded queue, requests would be answered after their callers have given up
and asked again; so a full lane refuses at once, which costs a fraction of an answer.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from airflow_remote_protocol.errors import ProblemCode

from airflow_remote_provider.api.problems import Refusal

LONGEST_RETRY_S = 30.0
"""The longest time to retry that a refusal names, however long the queue: it may be shorter than we think."""
FIRST_GUESS_S = 0.01
"""The assumed duration of a turn until some have been measured."""
PACE_FACTOR = 0.5
"""Turns are promised at twice the measured pace, because during a rush each turn also waits for the others. An empty queue wastes
time; a queue that is still full costs only another refusal."""
WEIGHT = 0.05
"""Weight of the newest turn in the moving average: about the last twenty turns count."""


class Lane:
    """Lets *at_once* callers pass and *waiting* more wait in order; refuses all others, with a time to retry.

    Refused callers get turns one after the other, at the recent pace of the lane, so that about as many come back as it can
    serve.
    """

    def __init__(
        self,
        name: str,
        *,
        at_once: int,
        waiting: int,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.name = name
        self.longest = 0
        """The longest queue so far."""
        self.refused = 0
        self._at_once = at_once
        self._most = waiting
        self._room = asyncio.Semaphore(at_once)
        self._waiting = 0
        self._turn_s = FIRST_GUESS_S
        self._promised_until = 0.0
        self._clock = clock
        self._chance = chance

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Wait for a turn, and keep it until the context is left.

        Raises:
            Refusal: `busy`, with the time until the caller's turn.
        """
        if self._room.locked() and self._waiting >= self._most:
            self.refused += 1
            raise Refusal(
                ProblemCode.BUSY,
                f"central is busy ({self.name}): {self._waiting} requests are already waiting; try again later",
                retry_after_s=self._promise(),
            )
        self._waiting += 1
        self.longest = max(self.longest, self._waiting - (not self._room.locked()))
        try:
            await self._room.acquire()
        finally:
            self._waiting -= 1
        began = self._clock()
        try:
            yield
        finally:
            self._turn_s += WEIGHT * (self._clock() - began - self._turn_s)
            self._room.release()

    def _promise(self) -> float:
        """Return in how many seconds one more caller's turn comes, after all callers that wait or were promised one."""
        now = self._clock()
        pace_s = PACE_FACTOR * self._turn_s / self._at_once
        self._promised_until = max(self._promised_until, now + self._waiting * pace_s) + pace_s
        if self._promised_until - now > LONGEST_RETRY_S:
            # The queue is longer than the longest wait: spread its end over the second half of that.
            self._promised_until = now + LONGEST_RETRY_S
            return LONGEST_RETRY_S * (0.5 + 0.5 * self._chance())
        return self._promised_until - now
