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
REMEMBERED_S = 60.0
"""How long after a large answer the worker's next ones are expected to be as large."""
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


class _Calls:
    """The calls of one worker that are passed on, or wait for that."""

    def __init__(self) -> None:
        self.reading = asyncio.Lock()
        self.writing = asyncio.Lock()
        self.under_way = 0
        self.free_at = 0.0
        """When the large calls so far will have gone through at their pace."""
        self.answered_at = -REMEMBERED_S
        """When an answer was large last."""
        self.answer_bytes = 0
        """How large."""

    def note(self, size: int, *, is_answer: bool) -> None:
        if size < LARGE_BYTES:
            return
        self.free_at = max(self.free_at, _now()) + size / LARGE_BYTES_PER_S
        if is_answer:
            self.answered_at, self.answer_bytes = _now(), size

    async def keep_pace(self) -> None:
        await asyncio.sleep(max(0.0, self.free_at - _now() - BURST_BYTES / LARGE_BYTES_PER_S))


class Holdings:
    """Of one API process."""

    def __init__(self) -> None:
        self._by_worker: dict[str, int] = {}
        self._all = 0
        self._calls: dict[str, _Calls] = {}

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
        self._check(worker_id, size, alone=alone)
        self._by_worker[worker_id] = self._by_worker.get(worker_id, 0) + size
        self._all += size

    def _check(self, worker_id: str, size: int, *, alone: int) -> None:
        mine = self._by_worker.get(worker_id, 0)
        if mine > alone and mine + size > WORKER_BYTES:
            text = f"the calls of this worker hold {mine} bytes of bodies and unread answers; {WORKER_BYTES} is the limit"
            raise Refusal(ProblemCode.BUSY, f"{text}; read the answers, or try again later", retry_after_s=RETRY_S)
        if self._all > alone and self._all + size > PROCESS_BYTES:
            text = f"the calls of all workers hold {self._all} bytes of bodies and answers"
            raise Refusal(ProblemCode.BUSY, f"central is busy: {text}; try again later", retry_after_s=RETRY_S)

    def remove(self, worker_id: str, size: int) -> None:
        self._all -= size
        self._by_worker[worker_id] -= size
        if not self._by_worker[worker_id]:
            del self._by_worker[worker_id]

    @asynccontextmanager
    async def turn(self, worker_id: str, *, body_bytes: int, reads: bool) -> AsyncIterator[Turn]:
        """Wait until a call of this worker may be passed on. Reads go one at a time: how large an answer is, is only known when the
        memory holds it, several times. So do large writes. Both keep the pace of large calls.

        Raises:
            Refusal: `busy`: another answer as large as the last one would be more than the worker may hold.
        """
        calls = self._calls.setdefault(worker_id, _Calls())
        calls.under_way += 1
        turn = Turn()
        try:
            if reads:
                async with calls.reading:
                    if _now() - calls.answered_at < REMEMBERED_S:
                        self._check(worker_id, calls.answer_bytes, alone=0)
                        await calls.keep_pace()
                    yield turn
                    calls.note(turn.answer_bytes, is_answer=True)
            elif body_bytes >= LARGE_BYTES:
                async with calls.writing:
                    await calls.keep_pace()
                    yield turn
                    calls.note(body_bytes, is_answer=False)
            else:
                yield turn
        finally:
            calls.under_way -= 1
            if not calls.under_way and _now() - max(calls.answered_at, calls.free_at) >= REMEMBERED_S:
                self._calls.pop(worker_id, None)


class Turn:
    """One call's turn; how large its answer is, is told when it is known."""

    def __init__(self) -> None:
        self.answer_bytes = 0


def _now() -> float:
    return asyncio.get_running_loop().time()


def holding_of(request: Request) -> Holding:
    """Return the holding of this call; of a caller that is no worker yet, one that counts nothing: its bodies are small."""
    holding: Holding = request.scope.get(_KEY) or Holding(None, "")
    return holding
