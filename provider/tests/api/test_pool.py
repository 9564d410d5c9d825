"""The ledger's threads keep a connection for a while, but never a broken one."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable

import pytest
from airflow_remote_protocol.errors import ProblemCode
from airflow_remote_provider.api import pool as pool_module
from airflow_remote_provider.api.pool import LedgerPool
from airflow_remote_provider.api.problems import Refusal
from sqlalchemy import Engine, event, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session


def _run(check: Callable[[LedgerPool], Awaitable[None]]) -> None:
    async def run() -> None:
        pool = LedgerPool(1)
        try:
            await check(pool)
        finally:
            pool.close()

    asyncio.run(run())


def _checkouts(engine: Engine) -> list[object]:
    seen: list[object] = []
    event.listen(engine, "checkout", lambda connection, *_: seen.append(connection))
    return seen


def _ask(session: Session) -> int:
    return int(session.scalar(text("SELECT 1")) or 0)


def _fail(session: Session) -> None:
    _ask(session)
    raise OperationalError("SELECT 1", {}, Exception("the server closed the connection"))


def test_calls_in_a_row_share_a_connection(database: Engine) -> None:
    taken = _checkouts(database)

    async def check(pool: LedgerPool) -> None:
        assert [await pool.call(_ask) for _ in range(3)] == [1, 1, 1]
        assert len(taken) == 1

    _run(check)


def test_a_connection_is_replaced_after_a_while(database: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "KEPT_S", 0.0)
    taken = _checkouts(database)

    async def check(pool: LedgerPool) -> None:
        for _ in range(3):
            await pool.call(_ask)
        assert len(taken) == 3

    _run(check)


def test_a_connection_that_failed_is_not_used_again(database: Engine) -> None:
    taken = _checkouts(database)

    async def check(pool: LedgerPool) -> None:
        with pytest.raises(OperationalError):
            await pool.call(_fail)
        await pool.call(_ask)
        assert len(taken) == 2

    _run(check)


def test_a_failed_verb_leaves_nothing_open(database: Engine) -> None:
    def refuse(session: Session) -> None:
        _ask(session)
        raise ValueError("no")

    async def check(pool: LedgerPool) -> None:
        with pytest.raises(ValueError, match="no"):
            await pool.call(refuse)
        assert await pool.call(lambda session: session.connection().get_nested_transaction()) is None
        assert await pool.call(_ask) == 1

    _run(check)


def test_a_returning_fleet_leaves_threads_for_jobs_and_its_queue_is_limited(database: Engine) -> None:
    """No timing is involved: sessions are blocked until the job's call has been answered before them."""
    proceed = threading.Event()
    blocked = threading.Semaphore(0)

    def block(session: Session) -> int:
        blocked.release()
        proceed.wait(30)
        return _ask(session)

    async def check() -> None:
        pool = LedgerPool(4)
        try:
            sessions = [asyncio.ensure_future(pool.workers.call(block)) for _ in range(2_000)]
            for _ in range(2):
                assert await asyncio.to_thread(blocked.acquire, timeout=30)
            assert await pool.jobs.call(_ask) == 1
            assert await pool.call(_ask) == 1, "central's own loops continue"
            proceed.set()
            answers = await asyncio.gather(*sessions, return_exceptions=True)
            refused = [answer for answer in answers if isinstance(answer, Refusal)]
            assert {refusal.code for refusal in refused} == {ProblemCode.BUSY}
            assert answers.count(1) == 2 + pool_module.WORKERS_WAIT == 2_000 - len(refused)
            assert pool.workers.lane.longest == pool_module.WORKERS_WAIT
        finally:
            proceed.set()
            pool.close()

    asyncio.run(check())


def test_one_thread_is_enough() -> None:
    pool = LedgerPool(1)
    assert asyncio.run(pool.workers.blocking(lambda: 1)) == 1
    pool.close()
