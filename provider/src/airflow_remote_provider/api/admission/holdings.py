"""How many bytes of bodies and answers the calls of one worker, and of all, may keep in the memory of one API process.

What is held is given back when the call's answer has been sent. Asked on the event loop only.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import Enum

import anyio
from airflow_remote_protocol.errors import ProblemCode
from starlette.requests import Request

from airflow_remote_provider.api.problems import Refusal

MIB = 1024 * 1024
WORKER_BYTES = 8 * MIB
"""Of one worker's bodies, and of its answers. A call that needs more passes if the worker holds next to nothing else of the
kind; `[remote] gateway_body_bytes` bounds that."""
PROCESS_BYTES = 128 * MIB
"""Of the bodies of all workers, and of the answers: this, or twice `[remote] gateway_body_bytes` if that is more. A call that
needs more passes if nobody else holds anything of the kind."""
BESIDE_BYTES = MIB
"""What other calls of a worker may hold beside one that needs more than the share: its poll and small calls always hold some."""
SMALL_BYTES = 64 * 1024
"""Up to here a body or an answer is never refused for what others hold: the number of calls under way bounds these."""
LARGE_BYTES = MIB
"""From here on a body or an answer is large: to parse it takes tens of milliseconds, in which nobody else is served."""
LARGE_BYTES_PER_S = 2 * MIB
"""How fast the large bodies and answers of one worker go through. Airflow takes about 20 ms for a MiB, so others find the event
loop taken for less than 5 % of the time."""
BURST_BYTES = 4 * MIB
"""How many go through without a wait."""
LONGEST_WAIT_S = 10.0
"""How long a call waits for its turn at that pace. One that has to wait longer is told to come again: a worker takes a call that
is silent for 30 s for a broken connection."""
REMEMBERED_S = 60.0
"""How long the answer to a call is expected to be as large as it was."""
PATHS_REMEMBERED = 64
"""Of one worker: calls whose answers were large."""
RETRY_S = 2.0
_KEY = "airflow_remote.holding"


class Content(Enum):
    """What is held. A slow download of one task must not keep the others from writing."""

    BODY = "bodies"
    ANSWER = "answers that it has not received"


class Holdings:
    """Of one API process. *largest*: how many bytes one body may have."""

    def __init__(self, largest: int = 0) -> None:
        # Twice, or a body of that size would wait until nobody else holds anything.
        self._most = max(PROCESS_BYTES, 2 * largest)
        self._by_worker: dict[tuple[str, Content], int] = {}
        self._all = dict.fromkeys(Content, 0)
        self._calls: dict[str, _Calls] = {}
        self._huge = anyio.Lock()

    def held(self, content: Content) -> int:
        """Return how many bytes of this kind all workers hold."""
        return self._all[content]

    def of(self, request: Request, worker_id: str) -> Holding:
        """Open the holding of a call; :func:`holding_of` finds it from then on."""
        holding = Holding(self, worker_id)
        request.scope[_KEY] = holding
        return holding

    def check(self, worker_id: str, content: Content, size: int, *, own: int = 0) -> None:
        """Return if a call that holds *own* bytes may hold *size* more.

        Raises:
            Refusal: `busy`.
        """
        mine, everyones = self._by_worker.get((worker_id, content), 0), self._all[content]
        if size <= SMALL_BYTES:
            return
        if mine - own > BESIDE_BYTES and mine + size > WORKER_BYTES:
            text = f"the calls of this worker hold {mine} bytes of {content.value}; {WORKER_BYTES} is the limit"
            raise Refusal(ProblemCode.BUSY, f"{text}; try again when they are done", retry_after_s=RETRY_S)
        if everyones > own and everyones + size > self._most:
            text = f"the calls of all workers hold {everyones} bytes of bodies or of answers"
            raise Refusal(ProblemCode.BUSY, f"central is busy: {text}; try again later", retry_after_s=RETRY_S)

    def insist_on_pace(self, worker_id: str, size: int) -> None:
        """Return if a worker may send a body of *size* bytes now, before it is received.

        Raises:
            Refusal: `busy`: large calls of this worker have to go through first.
        """
        if size >= LARGE_BYTES and (calls := self._calls.get(worker_id)) is not None:
            calls.insist_on_pace()

    def add(self, worker_id: str, content: Content, size: int) -> None:
        """Count *size* bytes more, or less."""
        self._all[content] += size
        held = self._by_worker.pop((worker_id, content), 0) + size
        if held:
            self._by_worker[worker_id, content] = held

    @asynccontextmanager
    async def turn(self, worker_id: str, path: str, *, body_bytes: int, reads: bool) -> AsyncIterator[Turn]:
        """Wait until a call of this worker may be passed on.

        Reads go one at a time: how large an answer is, is only known when the memory holds it, several times. So do large writes.
        Both keep the pace of large calls.

        Raises:
            Refusal: `busy`: the last answer to this call was so large that another one is more than the worker may hold.
        """
        calls = self._calls.setdefault(worker_id, _Calls())
        calls.under_way += 1
        turn = Turn()
        try:
            if reads:
                async with calls.reading:
                    self.check(worker_id, Content.ANSWER, calls.expected(path))
                    await calls.keep_pace()
                    try:
                        async with self._alone(calls.expected(path)):
                            yield turn
                    finally:
                        calls.note_answer(path, turn.answer_bytes)
            elif body_bytes >= LARGE_BYTES:
                async with calls.writing:
                    await calls.keep_pace()
                    async with self._alone(body_bytes):
                        yield turn
                    calls.note(body_bytes)
            else:
                yield turn
        finally:
            calls.under_way -= 1
            if calls.is_idle:
                self._calls.pop(worker_id, None)

    @asynccontextmanager
    async def _alone(self, size: int) -> AsyncIterator[None]:
        """Let calls of more than a worker's share through one at a time, of all workers.

        Airflow needs up to 17 times the bytes of a value while it parses, encrypts and stores it.

        Raises:
            Refusal: `busy`.
        """
        if size <= WORKER_BYTES:
            yield
            return
        with anyio.move_on_after(LONGEST_WAIT_S) as waited:
            await self._huge.acquire()
        if waited.cancelled_caught:
            text = f"values of more than {WORKER_BYTES} bytes pass one at a time"
            raise Refusal(ProblemCode.BUSY, f"central is busy: {text}; try again later", retry_after_s=RETRY_S)
        try:
            yield
        finally:
            self._huge.release()


class Holding:
    """What one call holds."""

    def __init__(self, holdings: Holdings | None, worker_id: str) -> None:
        self._holdings = holdings
        self._worker_id = worker_id
        self._bytes = dict.fromkeys(Content, 0)

    def take(self, size: int, content: Content = Content.BODY) -> None:
        """Hold *size* bytes more.

        Raises:
            Refusal: `busy`: the worker, or all workers together, hold too much.
        """
        if self._holdings is not None and size:
            self._holdings.check(self._worker_id, content, size, own=self._bytes[content])
            self._holdings.add(self._worker_id, content, size)
            self._bytes[content] += size

    def give_back(self) -> None:
        """Hold nothing any more."""
        for content, size in self._bytes.items():
            if self._holdings is not None and size:
                self._holdings.add(self._worker_id, content, -size)
            self._bytes[content] = 0


@dataclass
class Turn:
    """One call's turn. The caller sets how large its answer is."""

    answer_bytes: int = 0


class _Calls:
    """The calls of one worker that are passed on, or wait for that."""

    def __init__(self) -> None:
        self.reading = asyncio.Lock()
        self.writing = asyncio.Lock()
        self.under_way = 0
        self._free_at = 0.0
        """When the large calls so far will have gone through at their pace."""
        self._large: OrderedDict[str, tuple[float, int]] = OrderedDict()
        """By the path of a call: when its answer was large last, and how large."""

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to remember."""
        self._forget()
        return not self.under_way and not self._large and self._free_at <= _now()

    def expected(self, path: str) -> int:
        """Return how large the answer to this call was lately, if it was large."""
        self._forget()
        return self._large.get(path, (0.0, 0))[1]

    def note_answer(self, path: str, size: int) -> None:
        self._large.pop(path, None)
        if size >= LARGE_BYTES:
            self._large[path] = _now(), size
        while len(self._large) > PATHS_REMEMBERED:
            self._large.popitem(last=False)
        self.note(size)

    def note(self, size: int) -> None:
        if size >= LARGE_BYTES:
            self._free_at = max(self._free_at, _now()) + size / LARGE_BYTES_PER_S

    async def keep_pace(self) -> None:
        """Raises: Refusal: `busy`: the wait would be too long."""
        self.insist_on_pace()
        await asyncio.sleep(max(0.0, self._wait_s))

    def insist_on_pace(self) -> None:
        """Raises: Refusal: `busy`: the wait would be too long."""
        if self._wait_s > LONGEST_WAIT_S:
            text = f"large calls of this worker take turns, at {LARGE_BYTES_PER_S} bytes/s"
            raise Refusal(ProblemCode.BUSY, f"{text}; try again later", retry_after_s=self._wait_s)

    @property
    def _wait_s(self) -> float:
        return self._free_at - _now() - BURST_BYTES / LARGE_BYTES_PER_S

    def _forget(self) -> None:
        while self._large and _now() - next(iter(self._large.values()))[0] >= REMEMBERED_S:
            self._large.popitem(last=False)


def _now() -> float:
    return asyncio.get_running_loop().time()


def holding_of(request: Request) -> Holding:
    """Return the holding of this call; of a caller that is no worker yet, one that counts nothing: its bodies are small."""
    holding: Holding = request.scope.get(_KEY) or Holding(None, "")
    return holding
