"""Retries: how long a loop waits after each error of a request to central.

    attempts = Attempts(link, clock)
    while …:
        try:
            await link.report(…)
        except Superseded: …  # only the caller can decide this
        except RETRIED as error:
            await attempts.wait_after(error)

A loop that makes many requests calls :meth:`Attempts.reset` after each answer; a loop for a single request doesn't need to.
"""

from __future__ import annotations

from typing import Protocol

from airflow_remote_worker.clock import Backoff, Clock
from airflow_remote_worker.errors import Outdated, Rewind, Superseded, Unreachable

RETRIED = (Unreachable, Outdated, Rewind)
"""The request itself is valid: send it again after a wait. An outdated worker keeps its results until it is updated."""
RETRIED_OF_WORKER = (*RETRIED, Superseded)
"""The same for requests that concern no job, where the caller can't act on `Superseded`."""
CEILING_S = 30.0


class Contact(Protocol):
    async def wait_for_contact(self, at_most_s: float) -> None: ...


class Attempts:
    """The waits between the attempts of one loop: longer each time, and ended early once central can be reached again."""

    def __init__(self, link: Contact, clock: Clock, *, floor_s: float = 0.5, ceiling_s: float = CEILING_S) -> None:
        self._link = link
        self._backoff = Backoff(clock, floor_s=floor_s, ceiling_s=ceiling_s)

    async def wait_after(self, error: Exception) -> None:
        """Wait before the next attempt, at least as long as central asked for."""
        await self._link.wait_for_contact(self.next_s(error))

    def next_s(self, error: Exception | None = None) -> float:
        """Return how long to wait after one more failure, for callers that wait themselves."""
        return self._backoff.next_s(getattr(error, "retry_after_s", None))

    def reset(self) -> None:
        """Start again with the shortest wait: a request was answered."""
        self._backoff.reset()
