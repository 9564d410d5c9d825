"""Credentials that this process does not know, looked up in the database: all that wait, with one question.

Whoever has no credential can make up as many as it likes; what they cost the database does not depend on how many there are.
"""

from __future__ import annotations

import asyncio

from airflow_remote_protocol.errors import ProblemCode

from airflow_remote_provider.api.pool import LedgerPool
from airflow_remote_provider.api.problems import Refusal
from airflow_remote_provider.ledger import workers
from airflow_remote_provider.ledger.workers import WorkerRecord

APART_S = 0.2
"""Between two questions. The first one after a pause is asked at once."""
MOST_WAITING = 64
"""Credentials in one question."""
RETRY_S = 2.0


class Lookups:
    """Of one API process. Asked on the event loop only."""

    def __init__(self, pool: LedgerPool) -> None:
        self._pool = pool
        self._waiting: dict[str, asyncio.Future[WorkerRecord | None]] = {}
        self._turn = asyncio.Lock()
        self._asked_at = -APART_S

    async def find(self, digest: str) -> WorkerRecord | None:
        """Return the worker whose credential has this hash; None if there is none.

        Raises:
            Refusal: `busy`: too many wait for an answer.
        """
        answer = self._waiting.get(digest)
        if answer is None:
            if len(self._waiting) >= MOST_WAITING:
                raise _busy()
            answer = self._waiting[digest] = asyncio.get_running_loop().create_future()
        async with self._turn:
            if not answer.done():  # nobody before us has asked for it
                await self._ask()
        return answer.result()

    async def _ask(self) -> None:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(max(0.0, self._asked_at + APART_S - loop.time()))
        self._asked_at = loop.time()
        asked, self._waiting = self._waiting, {}
        try:
            found = await self._pool.call(workers.by_credentials, list(asked))
        except BaseException:
            for answer in asked.values():
                answer.set_exception(_busy())
                answer.exception()  # whoever asked may be gone; then nobody reads it
            raise
        for digest, answer in asked.items():
            answer.set_result(found.get(digest))


def _busy() -> Refusal:
    text = "central is busy with credentials that it does not know yet; try again later"
    return Refusal(ProblemCode.BUSY, text, retry_after_s=RETRY_S)
