"""The limit of one job's writes is counted in the ledger: it is the same with several processes and after restarts."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from sqlalchemy import Engine

from testkit.ledger import record_statements, enlist, job_row, running  # isort: skip

from airflow_remote_provider.api.gateway.writes import FREE_BYTES, FREE_CALLS, Writes
from airflow_remote_provider.api.pool import LedgerPool
from airflow_remote_provider.api.problems import TooMuchWritten
from airflow_remote_provider.ledger.fence import WorkerLease
from airflow_remote_provider.ledger.written import Bounds

BOUNDS = Bounds(64 * FREE_BYTES, 64 * FREE_CALLS)


def _run(check: Callable[[Callable[[], Writes]], Awaitable[None]]) -> None:
    async def run() -> None:
        pool = LedgerPool(2)
        try:
            await check(lambda: Writes(pool, BOUNDS))
        finally:
            pool.close()

    asyncio.run(run())


async def _written(writes: Writes, lease: WorkerLease, size: int) -> int:
    """Write until a call is refused; return how many were accepted."""
    for calls in range(100_000):
        try:
            await writes.take(lease, size)
        except TooMuchWritten:
            return calls
    raise AssertionError("there is no limit")


def test_an_ordinary_job_costs_the_ledger_nothing(database: Engine) -> None:
    lease = running(enlist())

    async def check(process: Callable[[], Writes]) -> None:
        writes = process()
        with record_statements(database) as statements:
            for _ in range(FREE_CALLS):
                await writes.take(lease, FREE_BYTES // FREE_CALLS)
        assert statements == []

    _run(check)


@pytest.mark.parametrize(("size", "most"), [(FREE_BYTES // 2, 128), (0, BOUNDS.calls), (BOUNDS.size // 3, 3)])
def test_neither_bytes_nor_calls_exceed_the_limit(database: Engine, size: int, most: int) -> None:
    lease = running(enlist())

    async def check(process: Callable[[], Writes]) -> None:
        calls = await _written(process(), lease, size)
        assert most - 1 <= calls <= most + FREE_CALLS
        assert job_row(lease.job_id).written_bytes <= BOUNDS.size
        assert job_row(lease.job_id).writes <= BOUNDS.calls

    _run(check)


def test_another_process_or_a_restart_adds_only_the_free_writes(database: Engine) -> None:
    lease = running(enlist())

    async def check(process: Callable[[], Writes]) -> None:
        size = FREE_BYTES // 2
        await _written(process(), lease, size)
        for _ in range(3):
            assert await _written(process(), lease, size) <= FREE_BYTES // size

    _run(check)


def test_each_job_has_its_own_limit(database: Engine) -> None:
    worker = enlist()
    first, second = running(worker), running(worker)

    async def check(process: Callable[[], Writes]) -> None:
        writes = process()
        await _written(writes, first, FREE_BYTES)
        await writes.take(second, FREE_BYTES * 2)

    _run(check)


def test_a_lease_that_is_over_reserves_nothing(database: Engine) -> None:
    lease = running(enlist())
    older = WorkerLease(lease.worker_id, lease.job_id, lease.epoch - 1)

    async def check(process: Callable[[], Writes]) -> None:
        with pytest.raises(TooMuchWritten):
            await process().take(older, FREE_BYTES * 2)
        assert job_row(lease.job_id).written_bytes == 0

    _run(check)
