"""Time, sleep and random numbers as one object that tests replace. The rest of the worker reads no clock and draws no numbers."""

from __future__ import annotations

import random
import time
from typing import Protocol

import anyio

from airflow_remote_worker.local import boottime

CLOCK_DIFFERS_S = 60.0
"""From this difference on users are warned that the wall clock is off. It only makes the logs of both sides hard to compare."""


class Clock(Protocol):
    def monotonic(self) -> float:
        """Return seconds that never run backwards and go on while the machine is suspended; comparable until the next reboot."""

    def wall(self) -> float:
        """Return seconds since the epoch: for texts and files, never for decisions."""

    def chance(self) -> float:
        """Return a random number in [0, 1)."""

    async def sleep(self, seconds: float) -> None: ...


class SystemClock:
    """The real one."""

    def monotonic(self) -> float:
        return boottime.now()

    def wall(self) -> float:
        return time.time()

    def chance(self) -> float:
        return random.random()

    async def sleep(self, seconds: float) -> None:
        await anyio.sleep(seconds)


def describe_clock_offset(seconds: float) -> str:
    """Return a text on how far this machine's wall clock is off, with the remedy."""
    return f"{abs(seconds):.0f} s {'ahead of' if seconds > 0 else 'behind'} central's; set up NTP"


class Backoff:
    """Waits that double up to a ceiling, each shortened by a random part of up to one half."""

    def __init__(self, clock: Clock, *, floor_s: float, ceiling_s: float) -> None:
        self._clock = clock
        self._floor_s = floor_s
        self._ceiling_s = ceiling_s
        self._failures = 0

    def next_s(self, at_least_s: float | None = None) -> float:
        """Return how long to wait after one more failure; never less than *at_least_s*.

        *at_least_s* comes from a `Retry-After` in whole seconds. Callers that got the same value are spread over the second after
        it.
        """
        # The exponent is bounded: 2.0 ** 2000 overflows after a long outage.
        widest = min(self._ceiling_s, self._floor_s * 2.0 ** min(self._failures, 32))
        self._failures += 1
        wait_s = widest * (0.5 + 0.5 * self._clock.chance())
        return wait_s if at_least_s is None else max(wait_s, at_least_s + max(1.0, 0.1 * at_least_s) * self._clock.chance())

    def reset(self) -> None:
        """Start again with the shortest wait, after a success."""
        self._failures = 0
