"""How many bytes of bodies and answers the calls of one worker, and of all, may keep in the memory of one API process.

What is held is given back when the call's answer has been sent. Asked on the event loop only.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from airflow_remote_protocol.errors import ProblemCode
from starlette.requests import Request

from airflow_remote_provider.api.problems import Refusal

MIB = 1024 * 1024
WORKER_BYTES = 16 * MIB
"""Of one worker. A call that needs more passes if the worker holds nothing else; `[remote] gateway_body_bytes` bounds that."""
PROCESS_BYTES = 128 * MIB
"""Of all workers. A call that needs more passes if nobody holds anything."""
LARGE_BYTES = MIB
"""From here on a body or an answer is large: to parse it takes tens of milliseconds, in which nobody else is served."""
LARGE_BYTES_PER_S = 4 * MIB
"""How fast the large bodies and answers of one worker go through: to parse so many bytes takes about 5 % of a processor."""
BURST_BYTES = 8 * MIB
"""How many go through without a wait."""
READS_AT_ONCE = 2
"""Reads of one worker under way in the Execution API. The size of an answer is only known when memory holds it, several times."""
REMEMBERED_S = 60.0
"""How long after a large answer the worker's reads go one at a time."""
RETRY_S = 2.0
_KEY = "airflow_remote.holding"


class Holding:
    """What one call holds."""

    def __init__(self, holdings: Holdings | None, worker_id: str) -> None:
        self._holdings = holdings
        self._worker_id = worker_id
        self._bytes = 0

    def take(self, size: int) -> None:
        """Hold *size* bytes more.

        Raises:
            Refusal: `busy`: the worker, or all workers together, hold too much.
        """
        if self._holdings is not None and size:
            self._holdings.add(self._worker_id, size, alone=self._bytes)
            self._bytes += size

    def give_back(self) -> None:
        """Hold nothing any more."""
        if self._holdings is not None and self._bytes:
            self._holdings.remove(self._worker_id, self._bytes)
        self._bytes = 0


class _Large:
    """The turns of one worker's large calls."""

    def __init__(self) -> None:
        self.reads = asyncio.Semaphore(READS_AT_ONCE)
        self.turn = asyncio.Lock()
        self.under_way = 0
        self.free_at = 0.0
        """When the large calls so far will have gone through at their pace."""
        self.answered_at = -REMEMBERED_S
        """When an answer was large last."""


class Holdings:
    """Of one API process."""

    def __init__(self) -> None:
        self._by_worker: dict[str, int] = {}
        self._all = 0
        self._large: dict[str, _Large] = {}

    @property
    def held(self) -> int:
        return self._all

    def of(self, request: Request, worker_id: str) -> Holding:
        """Open the holding of a call; :func:`holding_of` finds it from then on."""
        holding = Holding(self, worker_id)
        request.scope[_KEY] = holding
        return holding

    def add(self, worker_id: str, size: int, *, alone: int) -> None:
        """Count *size* bytes of a call that holds *alone* bytes so far.

        Raises:
            Refusal: `busy`.
        """
        mine = self._by_worker.get(worker_id, 0)
        if mine > alone and mine + size > WORKER_BYTES:
            text = f"the calls of this worker hold {mine} bytes of bodies and unread answers; {WORKER_BYTES} is the limit"
            raise Refusal(ProblemCode.BUSY, f"{text}; read the answers, or try again later", retry_after_s=RETRY_S)
        if self._all > alone and self._all + size > PROCESS_BYTES:
            text = f"the calls of all workers hold {self._all} bytes of bodies and answers"
            raise Refusal(ProblemCode.BUSY, f"central is busy: {text}; try again later", retry_after_s=RETRY_S)
        self._by_worker[worker_id] = mine + size
        self._all += size

    def remove(self, worker_id: str, size: int) -> None:
        self._all -= size
        self._by_worker[worker_id] -= size
        if not self._by_worker[worker_id]:
            del self._by_worker[worker_id]

    @asynccontextmanager
    async def turn(self, worker_id: str, *, body_bytes: int, reads: bool) -> AsyncIterator[Turn]:
        """Wait until a call of this worker may be passed on: large ones go one at a time, at their pace; reads a few at once."""
        large = self._large.setdefault(worker_id, _Large())
        large.under_way += 1
        try:
            turn = Turn()
            if body_bytes >= LARGE_BYTES or (reads and _now() - large.answered_at < REMEMBERED_S):
                async with large.turn:
                    await asyncio.sleep(max(0.0, large.free_at - _now() - BURST_BYTES / LARGE_BYTES_PER_S))
                    yield turn
                    _note(large, max(body_bytes, turn.answer_bytes), is_answer=turn.answer_bytes >= LARGE_BYTES)
            elif reads:
                async with large.reads:
                    yield turn
                    _note(large, turn.answer_bytes, is_answer=turn.answer_bytes >= LARGE_BYTES)
            else:
                yield turn
        finally:
            large.under_way -= 1
            if not large.under_way and _now() - max(large.answered_at, large.free_at) >= REMEMBERED_S:
                self._large.pop(worker_id, None)


class Turn:
    """One call's turn; how large its answer is, is told when it is known."""

    def __init__(self) -> None:
        self.answer_bytes = 0


def _note(large: _Large, size: int, *, is_answer: bool) -> None:
    if size < LARGE_BYTES:
        return
    large.free_at = max(large.free_at, _now()) + size / LARGE_BYTES_PER_S
    if is_answer:
        large.answered_at = _now()


def _now() -> float:
    return asyncio.get_running_loop().time()


def holding_of(request: Request) -> Holding:
    """Return the holding of this call; of a caller that is no worker yet, one that counts nothing: its bodies are small."""
    holding: Holding = request.scope.get(_KEY) or Holding(None, "")
    return holding
