"""Credentials that a process does not know: however many wait, one question finds them all."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from sqlalchemy import Engine
from sqlalchemy.exc import OperationalError

from testkit.ledger import counted, enlist  # isort: skip

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


def test_many_are_found_or_not_with_two_questions(database: Engine) -> None:
    worker = enlist()

    async def check(lookups: Lookups) -> None:
        digests = [hash_token(str(number)) for number in range(MOST_WAITING - 1)] + [hash_token(worker.credential)]
        with counted(database) as statements:
            found = await asyncio.gather(*(lookups.find(digest) for digest in digests * 2))
        assert [record.id for record in found if record is not None] == [worker.id] * 2
        assert len([statement for statement in statements if "remote_worker" in statement]) <= 2

    _run(check)


def test_beyond_a_number_they_are_sent_away(database: Engine) -> None:
    async def check(lookups: Lookups) -> None:
        waiting = [asyncio.ensure_future(lookups.find(str(number))) for number in range(MOST_WAITING)]
        await asyncio.sleep(0)  # the first one asks at once for all that wait
        more = [asyncio.ensure_future(lookups.find(f"more {number}")) for number in range(2 * MOST_WAITING)]
        answers = await asyncio.gather(*waiting, *more, return_exceptions=True)
        refused = [answer for answer in answers if isinstance(answer, Refusal)]
        assert len(refused) >= MOST_WAITING // 2
        assert {refusal.code for refusal in refused} == {ProblemCode.BUSY}
        assert await lookups.find("later") is None

    _run(check)


def test_a_database_that_fails_fails_those_who_wait_and_nobody_later(database: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
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
