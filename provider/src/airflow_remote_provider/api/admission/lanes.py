"""How many requests may be under way, how many more may wait, and what the others are told: to come again, each in its turn.

After an outage a whole fleet calls at once. What waits without a bound is answered when its caller has given up, and asked again;
so a lane that is full refuses at once, which costs a fraction of the answer.
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
"""Nobody is sent away for longer, whatever the queue: it may be shorter than we think."""
FIRST_GUESS_S = 0.01
"""What one turn takes, until some have been seen."""
HOPE = 0.5
"""Turns are promised at twice the pace that was seen: in a rush each turn also waits for the rush. A queue that runs dry wastes
time; one that is full once more costs a refusal."""
WEIGHT = 0.05
"""Of the newest turn in the mean: the last twenty or so count."""


class Lane:
    """*at_once* callers pass, *waiting* more wait in order; whoever comes beyond is refused and told when to come again.

    The refused are given turns of their own, one behind the other at the pace at which the lane has worked lately: what
    comes back is then about what it can do.
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
        """Wait for a turn and have it.

        Raises:
            Refusal: `busy`, with the time after which the caller's turn comes.
        """
        if self._room.locked() and self._waiting >= self._most:
            self.refused += 1
            raise Refusal(
                ProblemCode.BUSY,
                f"central is busy ({self.name}): {self._waiting} requests wait already; try again later",
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
        """Return in how many seconds one more caller's turn comes, behind all who wait and all who were promised one."""
        now = self._clock()
        pace_s = HOPE * self._turn_s / self._at_once
        self._promised_until = max(self._promised_until, now + self._waiting * pace_s) + pace_s
        if self._promised_until - now > LONGEST_RETRY_S:
            # The line is longer than we let anyone wait: the end of it is spread over the second half.
            self._promised_until = now + LONGEST_RETRY_S
            return LONGEST_RETRY_S * (0.5 + 0.5 * self._chance())
        return self._promised_until - now
