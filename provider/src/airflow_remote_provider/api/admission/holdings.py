"""Limits how many bytes of bodies and answers the calls of one worker, and of all workers, keep in an API process's memory.

A call's bytes are given back when its answer has been sent. Used on the event loop only.
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
"""The share of one worker: for its bodies, and for its answers. A call that needs more passes if the worker's other calls hold
at most :data:`BESIDE_BYTES`; `[remote] gateway_body_bytes` limits the size of a single body."""
PROCESS_BYTES = 128 * MIB
"""The limit for the bodies of all workers, and for their answers: this, or twice `[remote] gateway_body_bytes` if that is more.
A call that needs more passes if no other call holds anything of the kind."""
BESIDE_BYTES = MIB
"""How much a worker's other calls may hold beside one that needs more than the share: its poll and small calls always hold
some."""
SMALL_BYTES = 64 * 1024
"""A body or an answer up to this size is never refused: the number of calls under way limits these."""
LARGE_BYTES = MIB
"""A body or an answer of this size or more is large: parsing it takes tens of milliseconds and blocks the event loop."""
LARGE_BYTES_PER_S = 2 * MIB
"""The rate limit for large bodies and answers of one worker. Airflow takes about 20 ms for a MiB, so they block the event loop
for less than 5 % of the time."""
BURST_BYTES = 4 * MIB
"""How many bytes of large calls pass before the rate limit applies."""
LONGEST_WAIT_S = 10.0
"""How long a call waits for the rate limit. A call that would wait longer gets `busy`: a worker treats a call that is silent for
30 s as a broken connection."""
REMEMBERED_S = 60.0
"""How long a call is expected to get an answer as large as its last one."""
PATHS_REMEMBERED = 64
"""Calls with large answers that are remembered for one worker."""
RETRY_S = 2.0
_KEY = "airflow_remote.holding"


class Content(Enum):
    """What the held bytes are. They are limited separately: a slow download of one task must not block the others' writes."""

    BODY = "bodies"
    ANSWER = "answers that it has not received"


class Holdings:
    """The bytes held in one API process. *largest*: the largest body that is allowed, in bytes."""

    def __init__(self, largest: int = 0) -> None:
        # Twice, because a body of that size would otherwise wait until no other call holds anything.
        self._most = max(PROCESS_BYTES, 2 * largest)
        self._by_worker: dict[tuple[str, Content], int] = {}
        self._all = dict.fromkeys(Content, 0)
        self._calls: dict[str, _Calls] = {}
        self._huge = anyio.Lock()

    def held(self, content: Content) -> int:
        """Return how many bytes of this kind all workers hold."""
        return self._all[content]

    def open(self, request: Request, worker_id: str) -> Holding:
        """Create the holding of a call, for :func:`holding_of` to find."""
        holding = Holding(self, worker_id)
        request.scope[_KEY] = holding
        return holding

    def check(self, worker_id: str, content: Content, size: int, *, own: int = 0) -> None:
        """Check that a call that holds *own* bytes may hold *size* more.

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

    def check_pace(self, worker_id: str, size: int) -> None:
        """Check that a worker may send a body of *size* bytes now, before it is received.

        Raises:
            Refusal: `busy`: large calls of this worker have to finish first.
        """
        if size >= LARGE_BYTES and (calls := self._calls.get(worker_id)) is not None:
            calls.check_pace()

    def add(self, worker_id: str, content: Content, size: int) -> None:
        """Add *size* bytes, which may be negative, to the held bytes."""
        self._all[content] += size
        held = self._by_worker.pop((worker_id, content), 0) + size
        if held:
            self._by_worker[worker_id, content] = held

    @asynccontextmanager
    async def turn(self, worker_id: str, path: str, *, body_bytes: int, reads: bool) -> AsyncIterator[Turn]:
        """Wait until a call of this worker may be passed on.

        Reads run one at a time, because an answer's size is known only when several copies of it are in memory. So do large
        writes. The rate limit of large calls applies to both.

        Raises:
            Refusal: `busy`: the last answer to this call was so large that another one would exceed the worker's share.
        """
        calls = self._calls.setdefault(worker_id, _Calls())
        calls.under_way += 1
        turn = Turn()
        try:
            if reads:
                async with calls.reading:
                    self.check(worker_id, Content.ANSWER, calls.expected(path))
                    await calls.wait_for_pace()
                    try:
                        async with self._one_at_a_time(calls.expected(path)):
                            yield turn
                    finally:
                        calls.note_answer(path, turn.answer_bytes)
            elif body_bytes >= LARGE_BYTES:
                async with calls.writing:
                    await calls.wait_for_pace()
                    async with self._one_at_a_time(body_bytes):
                        yield turn
                    calls.note(body_bytes)
            else:
                yield turn
        finally:
            calls.under_way -= 1
            if calls.is_idle:
                self._calls.pop(worker_id, None)

    @asynccontextmanager
    async def _one_at_a_time(self, size: int) -> AsyncIterator[None]:
        """Run calls of more than a worker's share one at a time, over all workers.

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
            text = f"values of more than {WORKER_BYTES} bytes are handled one at a time"
            raise Refusal(ProblemCode.BUSY, f"central is busy: {text}; try again later", retry_after_s=RETRY_S)
        try:
            yield
        finally:
            self._huge.release()


class Holding:
    """The bytes that one call holds."""

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
        """Release all bytes of the call."""
        for content, size in self._bytes.items():
            if self._holdings is not None and size:
                self._holdings.add(self._worker_id, content, -size)
            self._bytes[content] = 0


@dataclass
class Turn:
    """One call's turn. The caller sets the size of its answer."""

    answer_bytes: int = 0


class _Calls:
    """The calls of one worker that are passed on, or wait for it."""

    def __init__(self) -> None:
        self.reading = asyncio.Lock()
        self.writing = asyncio.Lock()
        self.under_way = 0
        self._free_at = 0.0
        """When the large calls so far will have passed the rate limit."""
        self._large: OrderedDict[str, tuple[float, int]] = OrderedDict()
        """By the path of a call: when its last large answer was sent, and its size."""

    @property
    def is_idle(self) -> bool:
        """Return whether nothing has to be remembered about this worker."""
        self._forget()
        return not self.under_way and not self._large and self._free_at <= _now()

    def expected(self, path: str) -> int:
        """Return the size of the last answer to this call, if it was large and recent; else 0."""
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

    async def wait_for_pace(self) -> None:
        """Wait as long as the rate limit requires.

        Raises:
            Refusal: `busy`: the wait would be longer than :data:`LONGEST_WAIT_S`.
        """
        self.check_pace()
        await asyncio.sleep(max(0.0, self._wait_s))

    def check_pace(self) -> None:
        """Check that a large call would not wait longer than :data:`LONGEST_WAIT_S`.

        Raises:
            Refusal: `busy`.
        """
        if self._wait_s > LONGEST_WAIT_S:
            text = f"large calls of this worker are limited to {LARGE_BYTES_PER_S} bytes/s"
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
    """Return the holding of this call; for a caller that is not a worker yet, one that counts nothing: its bodies are small."""
    holding: Holding = request.scope.get(_KEY) or Holding(None, "")
    return holding
