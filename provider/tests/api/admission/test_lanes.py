"""A lane's queue is limited, and each refused caller gets its own time to retry."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from itertools import pairwise

import pytest
from airflow_remote_protocol.errors import ProblemCode
from airflow_remote_provider.api.admission.lanes import LONGEST_RETRY_S, Lane
from airflow_remote_provider.api.problems import Refusal


class Work:
    """Callers that keep their place until :meth:`end`."""

    def __init__(self, lane: Lane) -> None:
        self.lane = lane
        self.done = asyncio.Event()
        self.working = 0
        self.most = 0
        self._tasks: list[asyncio.Task[None]] = []

    async def come(self, count: int) -> None:
        self._tasks += [asyncio.ensure_future(self._one()) for _ in range(count)]
        for _ in range(3):
            await asyncio.sleep(0)

    async def end(self) -> list[BaseException]:
        """End all calls; return the exceptions of the refused ones."""
        self.done.set()
        results = await asyncio.gather(*self._tasks, return_exceptions=True)
        return [result for result in results if isinstance(result, BaseException)]

    async def _one(self) -> None:
        async with self.lane.place():
            self.working += 1
            self.most = max(self.most, self.working)
            await self.done.wait()
            self.working -= 1


def _run(check: Callable[[Work], Awaitable[None]], *, at_once: int = 2, waiting: int = 3) -> None:
    async def run() -> None:
        await check(Work(Lane("test", at_once=at_once, waiting=waiting, clock=lambda: 100.0, chance=lambda: 0.5)))

    asyncio.run(run())


def _waits(refusals: list[BaseException]) -> list[float]:
    waits = []
    for refusal in refusals:
        assert isinstance(refusal, Refusal) and refusal.code is ProblemCode.BUSY and refusal.retry_after_s is not None
        waits.append(refusal.retry_after_s)
    return waits


def test_running_and_waiting_callers_are_limited() -> None:
    async def check(work: Work) -> None:
        await work.come(100)
        assert (work.working, work.lane.longest, work.lane.refused) == (2, 3, 95)
        refusals = await work.end()
        assert (work.most, len(refusals)) == (2, 95)

    _run(check)


def test_waiting_callers_get_their_turn() -> None:
    async def check(work: Work) -> None:
        await work.come(5)
        assert await work.end() == []

    _run(check)


def test_a_lane_without_a_queue_refuses_only_while_it_is_full() -> None:
    async def check(work: Work) -> None:
        await work.come(3)
        assert work.lane.refused == 1
        await work.end()
        await work.come(1)
        assert len(await work.end()) == 1, "only the one that was refused before"

    _run(check, waiting=0)


def test_refused_callers_get_increasing_times_to_retry() -> None:
    async def check(work: Work) -> None:
        await work.come(105)
        waits = _waits(await work.end())
        steps = [after - before for before, after in pairwise(waits)]
        assert waits[0] > 0 and min(steps) > 0, "each later than the one before"
        assert max(steps) - min(steps) < 1e-6, "at the pace of the lane"

    _run(check)


def test_the_time_to_retry_is_limited() -> None:
    async def check(work: Work) -> None:
        await work.come(50_000)
        assert max(_waits(await work.end())) <= LONGEST_RETRY_S

    _run(check)


def test_a_failed_call_gives_its_place_back() -> None:
    async def check(work: Work) -> None:
        for _ in range(5):
            with pytest.raises(ValueError, match="no"):
                async with work.lane.place():
                    raise ValueError("no")
        await work.come(2)
        assert work.working == 2
        await work.end()

    _run(check, waiting=0)


def test_a_cancelled_waiter_leaves_the_queue() -> None:
    async def check(work: Work) -> None:
        await work.come(2)
        waiting = asyncio.ensure_future(work._one())
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await work.come(1)
        assert work.lane.refused == 0
        await work.end()

    _run(check, waiting=1)
