"""Held bytes of bodies and answers are limited for each worker and for all, without delaying small calls."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from airflow_remote_protocol.errors import ProblemCode
from airflow_remote_provider.api.admission import holdings as module
from airflow_remote_provider.api.admission.holdings import (
    BURST_BYTES,
    LARGE_BYTES,
    MIB,
    PROCESS_BYTES,
    SMALL_BYTES,
    WORKER_BYTES,
    Content,
    Holding,
    Holdings,
)
from airflow_remote_provider.api.problems import Refusal


def _busy(holding: Holding, size: int, content: Content = Content.BODY) -> bool:
    try:
        holding.take(size, content)
    except Refusal as refusal:
        assert refusal.code is ProblemCode.BUSY
        return True
    return False


def test_each_worker_has_its_own_share() -> None:
    holdings = Holdings()
    first = Holding(holdings, "w")
    first.take(WORKER_BYTES)
    assert _busy(Holding(holdings, "w"), SMALL_BYTES + 1)
    assert not _busy(Holding(holdings, "other"), WORKER_BYTES)
    first.give_back()
    assert not _busy(Holding(holdings, "w"), WORKER_BYTES)


def test_a_call_may_exceed_the_share_if_no_other_holds_much() -> None:
    holdings = Holdings()
    large = Holding(holdings, "w")
    assert not _busy(large, WORKER_BYTES)
    assert not _busy(large, WORKER_BYTES)
    assert _busy(Holding(holdings, "w"), MIB)


def test_a_parked_poll_and_small_calls_do_not_block_a_large_one() -> None:
    holdings = Holdings()
    for _ in range(MIB // SMALL_BYTES):
        Holding(holdings, "w").take(SMALL_BYTES)
    assert not _busy(Holding(holdings, "w"), 4 * WORKER_BYTES)


def test_small_answers_always_pass_and_answers_do_not_block_bodies() -> None:
    holdings = Holdings()
    Holding(holdings, "w").take(4 * WORKER_BYTES, Content.ANSWER)
    assert not _busy(Holding(holdings, "w"), SMALL_BYTES, Content.ANSWER)
    assert not _busy(Holding(holdings, "w"), WORKER_BYTES, Content.BODY)


def test_all_workers_together_are_limited() -> None:
    holdings = Holdings()
    kept = [Holding(holdings, f"w{number}") for number in range(PROCESS_BYTES // WORKER_BYTES)]
    for holding in kept:
        holding.take(WORKER_BYTES)
    assert _busy(Holding(holdings, "one more"), WORKER_BYTES)
    for holding in kept:
        holding.give_back()
    assert holdings.held(Content.BODY) == 0
    assert holdings._by_worker == {}


def test_a_body_of_the_largest_size_passes_while_another_worker_holds_as_much() -> None:
    holdings = Holdings(largest=PROCESS_BYTES)
    Holding(holdings, "other").take(PROCESS_BYTES)
    assert not _busy(Holding(holdings, "w"), PROCESS_BYTES)
    assert _busy(Holding(holdings, "one more"), MIB)


# Turns


def _run(check: Callable[[Holdings], Awaitable[None]]) -> None:
    async def run() -> None:
        await check(Holdings())

    asyncio.run(run())


async def _read(holdings: Holdings, path: str, size: int, seen: list[int] | None = None) -> None:
    async with holdings.turn("w", path, body_bytes=0, reads=True) as turn:
        if seen is not None:
            seen.append(len(seen))
            assert len(seen) == 1, "another read is under way"
        await asyncio.sleep(0)
        if seen is not None:
            seen.clear()
        turn.answer_bytes = size


def test_reads_of_a_worker_run_one_at_a_time() -> None:
    async def check(holdings: Holdings) -> None:
        seen: list[int] = []
        await asyncio.gather(*(_read(holdings, f"variables/{number}", 10, seen) for number in range(20)))
        assert holdings._calls == {}, "small calls are not remembered"

    _run(check)


def test_a_call_with_a_large_answer_is_not_repeated_while_there_is_no_room_for_it() -> None:
    async def check(holdings: Holdings) -> None:
        await _read(holdings, "variables/large", WORKER_BYTES)
        unread = Holding(holdings, "w")
        unread.take(WORKER_BYTES, Content.ANSWER)
        with pytest.raises(Refusal) as refused:
            await _read(holdings, "variables/large", WORKER_BYTES)
        assert refused.value.code is ProblemCode.BUSY
        await asyncio.wait_for(_small_write(holdings), 1)
        unread.give_back()

    _run(check)


async def _small_write(holdings: Holdings) -> None:
    async with holdings.turn("w", "xcoms/a", body_bytes=10, reads=False):
        pass


def test_large_calls_are_rate_limited_and_small_writes_do_not_wait_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LARGE_BYTES_PER_S", 100 * MIB)

    async def check(holdings: Holdings) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()

        async def write() -> None:
            async with holdings.turn("w", "xcoms/a", body_bytes=10 * LARGE_BYTES, reads=False):
                pass

        writes = [asyncio.ensure_future(write()) for _ in range(6)]
        await asyncio.sleep(0)
        small = asyncio.ensure_future(_small_write(holdings))
        for _ in range(5):  # turns of the loop, which take no time
            await asyncio.sleep(0)
        assert small.done() and not all(write.done() for write in writes)
        await asyncio.gather(*writes)
        least_s = (50 * LARGE_BYTES - BURST_BYTES) / (100 * MIB)
        assert loop.time() - began >= least_s - 0.01

    _run(check)


def test_a_call_that_would_wait_too_long_is_refused_before_its_body_is_received() -> None:
    async def check(holdings: Holdings) -> None:
        holdings.check_pace("w", 64 * MIB)
        async with holdings.turn("w", "xcoms/a", body_bytes=64 * MIB, reads=False):
            pass
        holdings.check_pace("other", 64 * MIB)
        holdings.check_pace("w", SMALL_BYTES)
        with pytest.raises(Refusal) as refused:
            holdings.check_pace("w", LARGE_BYTES)
        assert refused.value.code is ProblemCode.BUSY
        assert 25 < (refused.value.retry_after_s or 0) < 35
        with pytest.raises(Refusal):
            await _read(holdings, "variables/x", 10)
        await asyncio.wait_for(_small_write(holdings), 1)

    _run(check)


def test_values_beyond_a_share_pass_one_at_a_time_over_all_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LONGEST_WAIT_S", 0.05)

    async def check(holdings: Holdings) -> None:
        async def write(worker_id: str, size: int) -> None:
            async with holdings.turn(worker_id, "xcoms/a", body_bytes=size, reads=False):
                pass

        async with holdings.turn("w", "xcoms/a", body_bytes=WORKER_BYTES + 1, reads=False):
            await asyncio.create_task(write("other", WORKER_BYTES))
            with pytest.raises(Refusal) as refused:
                await asyncio.create_task(write("third", WORKER_BYTES + 1))
            assert refused.value.code is ProblemCode.BUSY
        await asyncio.create_task(write("third", WORKER_BYTES + 1))

    _run(check)
