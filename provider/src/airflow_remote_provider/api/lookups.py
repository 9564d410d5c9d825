"""Looks up unknown credentials in the database: all that wait, with one query.

A caller without a credential can make up any number of them; their cost for the database does not depend on the number.
"""

from __future__ import annotations

import asyncio

from airflow_remote_protocol.errors import ProblemCode

from airflow_remote_provider.api.pool import LedgerPool
from airflow_remote_provider.api.problems import Refusal
from airflow_remote_provider.ledger import workers
from airflow_remote_provider.ledger.workers import WorkerRecord

INTERVAL_S = 0.2
"""Between two queries. The first one after a pause is made at once."""
MOST_WAITING = 64
"""Credentials in one query."""
RETRY_S = 2.0


class Lookups:
    """The lookups of one API process. Used on the event loop only."""

    def __init__(self, pool: LedgerPool) -> None:
        self._pool = pool
        self._waiting: dict[str, asyncio.Future[WorkerRecord | None]] = {}
        self._turn = asyncio.Lock()
        self._asked_at = -INTERVAL_S

    async def find(self, digest: str) -> WorkerRecord | None:
        """Return the worker whose credential has this hash; None if it is unknown.

        Raises:
            Refusal: `busy`: too many lookups wait.
        """
        answer = self._waiting.get(digest)
        if answer is None:
            if len(self._waiting) >= MOST_WAITING:
                raise _busy()
            answer = self._waiting[digest] = asyncio.get_running_loop().create_future()
        async with self._turn:
            if not answer.done():  # no caller before this one has made the query
                await self._ask()
        return answer.result()

    async def _ask(self) -> None:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(max(0.0, self._asked_at + INTERVAL_S - loop.time()))
        self._asked_at = loop.time()
        asked, self._waiting = self._waiting, {}
        try:
            found = await self._pool.call(workers.by_credentials, list(asked))
        except BaseException:  # cancelled, too: other callers wait for these answers
            for answer in asked.values():
                answer.set_exception(_busy())
                answer.exception()  # retrieved here, because the caller may be gone
            raise
        for digest, answer in asked.items():
            answer.set_result(found.get(digest))


def _busy() -> Refusal:
    text = "central is busy with credentials that it does not know yet; try again later"
    return Refusal(ProblemCode.BUSY, text, retry_after_s=RETRY_S)
