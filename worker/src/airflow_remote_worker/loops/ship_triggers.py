"""Ships the logs of all triggers, with pieces of many logs in one request.

A thousand triggers that log must not cause a thousand requests. New lines of running triggers wait some seconds for others; those
of an ended trigger wait less, because users read the log then.
"""

from __future__ import annotations

import gzip
import logging
from collections.abc import Callable

import anyio
import anyio.to_thread
import msgspec
from airflow_remote_protocol.messages import MAX_CHUNKS, ChunkResult, LogChunk, LogChunks

from airflow_remote_worker.clock import Clock
from airflow_remote_worker.errors import Refused, Unreachable
from airflow_remote_worker.link.attempts import RETRIED_OF_WORKER, Attempts
from airflow_remote_worker.link.client import Link
from airflow_remote_worker.triggers.trigger import Trigger

log = logging.getLogger(__name__)

EVERY_S = 8.0
"""Between two rounds for running triggers: with 1,000 of them, five requests a round or 0.6 a second."""
URGENT_S = 1.5
"""Between two rounds while the log of an ended trigger is not complete."""
GATHER_S = 0.3
"""How long the first line after a pause waits for more."""
MOST = 900_000
"""Bytes of one request before compression. Central accepts 1 MiB packed, and without gzip the size stays the same."""
IN_A_THREAD_FROM = 64_000


class ShipTriggersLoop:
    """*flushed* is called when central has all of an ended trigger's log: all that is here, once its host has completed it."""

    def __init__(self, link: Link, clock: Clock, flushed: Callable[[Trigger], None]) -> None:
        self.gzip = True
        self._link = link
        self._clock = clock
        self._flushed = flushed
        self._grown: dict[Trigger, None] = {}
        """A set in order: the triggers whose logs grew, the earliest first."""
        self._ended: dict[Trigger, None] = {}
        self._news = anyio.Event()
        self._urgent = anyio.Event()
        self._last_round = float("-inf")
        self._one_at_a_time = False
        """Whether to send one log at a time, to find the one for which a whole request was refused."""

    def log_grew(self, trigger: Trigger) -> None:
        """Note that the trigger's log has new lines, or is complete."""
        self._grown[trigger] = None
        self._news.set()
        if trigger in self._ended:
            self._urgent.set()

    def flush(self, trigger: Trigger) -> None:
        """Ship the rest of the log of a trigger that has ended."""
        self._ended[trigger] = None
        self._news.set()
        self._urgent.set()

    async def run(self) -> None:
        """Ship logs, until cancelled."""
        while True:
            await self._news.wait()
            await self._until_due()
            self._news, self._urgent = anyio.Event(), anyio.Event()
            self._last_round = self._clock.monotonic()
            await self._ship_all()

    async def _until_due(self) -> None:
        since_s = self._clock.monotonic() - self._last_round
        await self._clock.sleep(max(GATHER_S, URGENT_S - since_s if self._last_round > float("-inf") else 0.0))
        left_s = EVERY_S - (self._clock.monotonic() - self._last_round)
        if left_s > 0 and not self._urgent.is_set():
            with anyio.move_on_after(left_s):
                await self._urgent.wait()

    async def _ship_all(self) -> None:
        """Ship what is pending now. Later lines wait for the next round, except those of ended triggers."""
        round_of = dict.fromkeys([*self._ended, *self._grown])
        self._grown.clear()
        self._one_at_a_time = False
        attempts = Attempts(self._link, self._clock)
        while round_of:
            try:
                await self._ship_some(round_of)
                attempts.reset()
            except Refused as error:
                if error.concerns_one_request:
                    self._isolate_refused_log(round_of, str(error))
                else:
                    await attempts.wait_after(error)
            except RETRIED_OF_WORKER as error:
                await attempts.wait_after(error)

    async def _ship_some(self, round_of: dict[Trigger, None]) -> None:
        chunks: list[tuple[Trigger, bytes]] = []
        size = 0
        for trigger in list(round_of):
            piece = self._read(trigger)
            if not piece:
                self._done(trigger, round_of)
                continue
            # JSON within JSON: every quote and backslash takes another byte.
            takes = len(msgspec.json.encode(piece.decode())) + 150
            if chunks and (self._one_at_a_time or size + takes > MOST or len(chunks) >= MAX_CHUNKS):
                break
            chunks.append((trigger, piece))
            size += takes
        if chunks:
            await self._send(chunks, round_of)

    async def _send(self, chunks: list[tuple[Trigger, bytes]], round_of: dict[Trigger, None]) -> None:
        message = LogChunks([LogChunk(t.lease.job_id, t.lease.epoch, t.log.base, piece.decode()) for t, piece in chunks])
        body = msgspec.json.encode(message)
        if self.gzip:
            packs_here = len(body) < IN_A_THREAD_FROM
            body = _pack(body) if packs_here else await anyio.to_thread.run_sync(_pack, body)
        results = await self._link.append_logs(body, gzipped=self.gzip)
        if len(results) != len(chunks):
            raise Unreachable(f"central answered {len(chunks)} pieces of logs with {len(results)} results")
        moved = False
        for (trigger, piece), result in zip(chunks, results, strict=True):
            moved |= self._take_result(trigger, piece, result)
            if not trigger.log.size:
                self._done(trigger, round_of)
        if not moved:
            # Without this, a faulty peer would be called in a tight loop.
            raise Unreachable("central did not accept any of these logs")

    def _take_result(self, trigger: Trigger, piece: bytes, result: ChunkResult) -> bool:
        """Continue from central's position; return whether it has changed."""
        if result.refused:
            log.info("trigger %s: central accepts no more of its log: %s", trigger.lease, result.refused)
            trigger.log.refuse()
            return True
        before = trigger.log.base
        if result.size > before + trigger.log.size:
            log.error("trigger %s: central has %d bytes of its log, more than this worker sent", trigger.lease, result.size)
        try:
            trigger.log.advance(result.size)
        except OSError as error:
            log.error("trigger %s: its log can't be shortened: %s", trigger.lease, error)
            return False
        return trigger.log.base != before

    def _read(self, trigger: Trigger) -> bytes:
        try:
            return trigger.log.read_piece()
        except OSError as error:
            log.error("trigger %s: its log can't be read, the rest is lost: %s", trigger.lease, error)
            trigger.log.refuse()
            return b""

    def _done(self, trigger: Trigger, round_of: dict[Trigger, None]) -> None:
        round_of.pop(trigger, None)
        may_grow = trigger.log_is_open and not trigger.log.is_refused
        if trigger in self._ended and not may_grow:
            del self._ended[trigger]
            self._grown.pop(trigger, None)
            self._flushed(trigger)

    def _isolate_refused_log(self, round_of: dict[Trigger, None], reason: str) -> None:
        """After a refusal of a whole request: send one log at a time, and give up the log that is refused alone."""
        if not self._one_at_a_time:
            self._one_at_a_time = True
            return
        trigger = next(iter(round_of))
        log.error("trigger %s: central refuses its log: %s", trigger.lease, reason)
        trigger.log.refuse()


def _pack(body: bytes) -> bytes:
    return gzip.compress(body, compresslevel=4, mtime=0)
