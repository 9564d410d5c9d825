"""Each worker has one call of a kind under way and one that waits, and no more."""

from __future__ import annotations

import asyncio

import pytest
from airflow_remote_protocol.errors import ProblemCode
from airflow_remote_provider.api.admission.turns import Turns
from airflow_remote_provider.api.problems import Refusal


def test_a_second_call_waits_a_third_is_refused_and_another_worker_is_not_affected() -> None:
    async def check() -> None:
        turns, order, end = Turns("polls"), [], asyncio.Event()

        async def call(name: str, worker: str = "w") -> None:
            async with turns.turn(worker):
                order.append(name)
                await end.wait()

        first, second = asyncio.ensure_future(call("first")), asyncio.ensure_future(call("second"))
        await asyncio.sleep(0)
        with pytest.raises(Refusal) as refused:
            await call("third")
        assert (refused.value.code, "2 polls under way" in str(refused.value)) == (ProblemCode.BUSY, True)
        other = asyncio.ensure_future(call("other", "v"))
        await asyncio.sleep(0)
        assert order == ["first", "other"]
        end.set()
        await asyncio.gather(first, second, other)
        assert order == ["first", "other", "second"]
        assert turns._locks == turns._under_way == {}

    asyncio.run(check())


def test_a_cancelled_waiter_gives_up_its_turn() -> None:
    async def check() -> None:
        turns = Turns("polls")
        async with turns.turn("w"):
            waiting = asyncio.ensure_future(turns.turn("w").__aenter__())
            await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
        async with turns.turn("w"):
            pass
        assert turns._under_way == {}

    asyncio.run(check())
