"""Unknown credentials: one query looks up all that wait."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from sqlalchemy import Engine
from sqlalchemy.exc import OperationalError

from testkit.ledger import record_statements, enlist  # isort: skip

from airflow_remote_protocol.errors import ProblemCode
from airflow_remote_protocol.tokens import hash_token
from airflow_remote_provider.api.lookups import MOST_WAITING, Lookups
from airflow_remote_provider.api.pool import LedgerPool
from airflow_remote_provider.api.problems import Refusal
from airflow_remote_provider.ledger import workers


def _run(check: Callable[[Lookups], Awaitable[None]]) -> None:
    async def run() -> None:
        pool = LedgerPool(2)
        try:
            await check(Lookups(pool))
        finally:
            pool.close()

    asyncio.run(run())


def test_many_credentials_are_looked_up_with_two_queries(database: Engine) -> None:
    worker = enlist()

    async def check(lookups: Lookups) -> None:
        digests = [hash_token(str(number)) for number in range(MOST_WAITING - 1)] + [hash_token(worker.credential)]
        with record_statements(database) as statements:
            found = await asyncio.gather(*(lookups.find(digest) for digest in digests * 2))
        assert [record.id for record in found if record is not None] == [worker.id] * 2
        assert len([statement for statement in statements if "remote_worker" in statement]) <= 2

    _run(check)


def test_too_many_waiting_lookups_are_refused(database: Engine) -> None:
    async def check(lookups: Lookups) -> None:
        waiting = [asyncio.ensure_future(lookups.find(str(number))) for number in range(MOST_WAITING)]
        await asyncio.sleep(0)  # the first one queries all that wait at once
        more = [asyncio.ensure_future(lookups.find(f"more {number}")) for number in range(2 * MOST_WAITING)]
        answers = await asyncio.gather(*waiting, *more, return_exceptions=True)
        refused = [answer for answer in answers if isinstance(answer, Refusal)]
        assert len(refused) >= MOST_WAITING // 2
        assert {refusal.code for refusal in refused} == {ProblemCode.BUSY}
        assert await lookups.find("later") is None

    _run(check)


def test_a_database_failure_fails_the_waiting_lookups_only(database: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    right = workers.by_credentials

    def fail(*_: object) -> dict[str, object]:
        raise OperationalError("SELECT", {}, Exception("gone"))

    async def check(lookups: Lookups) -> None:
        monkeypatch.setattr(workers, "by_credentials", fail)
        answers = await asyncio.gather(*(lookups.find(str(number)) for number in range(5)), return_exceptions=True)
        assert all(isinstance(answer, (Refusal, OperationalError)) for answer in answers)
        monkeypatch.setattr(workers, "by_credentials", right)
        assert await lookups.find("1") is None

    _run(check)
