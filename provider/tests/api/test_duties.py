"""What time asks for: one round writes presence, keeps the duty and looks whether there is anything to watch."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from sqlalchemy import Engine
from sqlalchemy.exc import OperationalError

from testkit.ledger import Enlisted, counted, enlist, last_seen, queued  # isort: skip

from airflow_remote_provider import compat
from airflow_remote_provider.api.duties import Duties
from airflow_remote_provider.api.pool import LedgerPool
from airflow_remote_provider.models import Presence
from airflow_remote_provider.settings import settings

pytestmark = pytest.mark.usefixtures("database")


def _run(check: Callable[[LedgerPool], Awaitable[None]], pool: LedgerPool | None = None) -> None:
    async def run() -> None:
        used = pool or LedgerPool(1)
        try:
            await check(used)
        finally:
            used.close()

    asyncio.run(run())


def _was_seen(worker: Enlisted) -> bool:
    with compat.transaction() as session:
        presence = session.get(Presence, worker.id)
    return presence is not None and presence.last_seen_at is not None


def test_a_round_is_one_short_transaction_whatever_the_fleet(database: Engine) -> None:
    fleet = [enlist(f"w{n}") for n in range(5)]
    for worker in fleet:
        last_seen(worker.id, None)

    async def check(pool: LedgerPool) -> None:
        duties = Duties(pool, settings())
        await duties._round()  # takes the duty
        for worker in fleet:
            duties.heard(worker.id)
        with counted(database) as statements:
            assert await duties._round()
        assert len(statements) == 3, "\n".join(statements)

    _run(check)
    assert all(_was_seen(worker) for worker in fleet)


def test_only_one_process_has_the_duty() -> None:
    async def check(pool: LedgerPool) -> None:
        first, second = Duties(pool, settings()), Duties(pool, settings())
        assert (await first._round(), await second._round(), await first._round()) == (True, False, True)

    _run(check)


def test_an_open_job_keeps_it_busy_and_none_lets_it_rest() -> None:
    async def check(pool: LedgerPool) -> None:
        duties = Duties(pool, settings())
        duties.stir()
        await duties._round()
        assert not duties._busy
        await asyncio.to_thread(queued)
        await duties._round()
        assert duties._busy

    _run(check)


def test_what_stirs_during_a_round_counts() -> None:
    class Slow(LedgerPool):
        async def call(self, verb: Any, *args: Any, **kwargs: Any) -> Any:
            answer = await super().call(verb, *args, **kwargs)
            duties[0].stir()  # the answer is older than this
            return answer

    duties: list[Duties] = []

    async def check(pool: LedgerPool) -> None:
        duties.append(Duties(pool, settings()))
        await duties[0]._round()
        assert duties[0]._busy

    _run(check, Slow(1))


def test_who_was_heard_in_a_failed_round_is_written_by_the_next() -> None:
    worker = enlist()
    last_seen(worker.id, None)

    class Failing(LedgerPool):
        async def call(self, verb: Any, *args: Any, **kwargs: Any) -> Any:
            if failures:
                raise failures.pop()
            return await super().call(verb, *args, **kwargs)

    failures: list[Exception] = [OperationalError("UPDATE", {}, Exception("the database is away"))]

    async def check(pool: LedgerPool) -> None:
        duties = Duties(pool, settings())
        duties.heard(worker.id)
        with pytest.raises(OperationalError):
            await duties._round()
        await duties._round()

    _run(check, Failing(1))
    assert _was_seen(worker)
