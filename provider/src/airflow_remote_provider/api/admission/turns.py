"""Allows one call of a kind per worker, and one more that waits for it. Used on the event loop only."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from airflow_remote_protocol.errors import ProblemCode

from airflow_remote_provider.api.problems import Refusal

AT_ONCE = 2
"""The call under way and one that waits: a worker that gave up on a late answer makes its next call."""
RETRY_S = 1.0


class Turns:
    """The calls of one kind, of all workers of this process."""

    def __init__(self, kind: str) -> None:
        """*kind*: the name of the calls in the text of the refusal."""
        self._kind = kind
        self._locks: dict[str, asyncio.Lock] = {}
        self._under_way: dict[str, int] = {}

    @asynccontextmanager
    async def turn(self, worker_id: str) -> AsyncIterator[None]:
        """Wait until no other call of this worker is under way, then take its place.

        Raises:
            Refusal: `busy`: another call already waits.
        """
        under_way = self._under_way.get(worker_id, 0)
        if under_way >= AT_ONCE:
            raise Refusal(
                ProblemCode.BUSY,
                f"this worker has {under_way} {self._kind} under way and needs only one; wait for its answer",
                retry_after_s=RETRY_S,
            )
        self._under_way[worker_id] = under_way + 1
        lock = self._locks.setdefault(worker_id, asyncio.Lock())
        try:
            async with lock:
                yield
        finally:
            self._under_way[worker_id] -= 1
            if not self._under_way[worker_id]:
                del self._under_way[worker_id], self._locks[worker_id]
