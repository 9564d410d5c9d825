"""Ships the logs of all triggers: pieces of many logs in one request, now and then.

A thousand triggers that all log must not cost a thousand requests. New lines of triggers that run wait some seconds for others; a
trigger that has ended waits less, because people look then.
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
"""Between two rounds for triggers that run: with 1,000 of them five requests, 0.6 a second."""
HURRIED_S = 1.5
"""Between two rounds while a trigger has ended whose log is not complete."""
GATHER_S = 0.3
"""How long the first line after a quiet time waits for more."""
MOST = 900_000
"""Bytes of one request before compression. Central takes 1 MiB packed, and without gzip that is what it gets."""
IN_A_THREAD_FROM = 64_000


class ShipTriggersLoop:
    """*flushed* is called when central has all of an ended trigger's log."""

    def __init__(self, link: Link, clock: Clock, flushed: Callable[[Trigger], None]) -> None:
        self.gzip = True
        self._link = link
        self._clock = clock
        self._flushed = flushed
        self._grown: dict[Trigger, None] = {}
        """In the order in which they grew."""
        self._ended: dict[Trigger, None] = {}
        self._news = anyio.Event()
        self._hurry = anyio.Event()
        self._last_round = float("-inf")
        self._is_careful = False
        """A whole request was refused: one log at a time, to find out which."""

    def log_grew(self, trigger: Trigger) -> None:
        """There are new lines."""
        self._grown[trigger] = None
        self._news.set()

    def flush(self, trigger: Trigger) -> None:
        """The trigger has ended: ship what is left."""
        self._ended[trigger] = None
        self._news.set()
        self._hurry.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._news.wait()
            await self._until_due()
            self._news, self._hurry = anyio.Event(), anyio.Event()
            self._last_round = self._clock.monotonic()
            await self._ship_all()

    async def _until_due(self) -> None:
        since_s = self._clock.monotonic() - self._last_round
        await self._clock.sleep(max(GATHER_S, HURRIED_S - since_s if self._last_round > float("-inf") else 0.0))
        left_s = EVERY_S - (self._clock.monotonic() - self._last_round)
        if left_s > 0 and not self._hurry.is_set():
            with anyio.move_on_after(left_s):
                await self._hurry.wait()

    async def _ship_all(self) -> None:
        """Ship what waits now; lines that come meanwhile wait for the next round, except of ended triggers."""
        round_of = dict.fromkeys([*self._ended, *self._grown])
        self._grown.clear()
        self._is_careful = False
        attempts = Attempts(self._link, self._clock)
        while round_of:
            try:
                await self._ship_some(round_of)
                attempts.reset()
            except Refused as error:
                if error.concerns_one_request:
                    self._look_for_the_culprit(round_of, str(error))
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
            # As JSON in JSON: every quote and backslash takes another byte.
            takes = len(msgspec.json.encode(piece.decode())) + 150
            if chunks and (self._is_careful or size + takes > MOST or len(chunks) >= MAX_CHUNKS):
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
            raise Unreachable(f"central answered {len(results)} results to {len(chunks)} pieces of logs")
        moved = False
        for (trigger, piece), result in zip(chunks, results, strict=True):
            moved |= self._take_result(trigger, piece, result)
            if not trigger.log.size:
                self._done(trigger, round_of)
        if not moved:
            # Without this a confused peer would be asked in a tight loop.
            raise Unreachable("central did not move on in any of these logs")

    def _take_result(self, trigger: Trigger, piece: bytes, result: ChunkResult) -> bool:
        """Go on from where central stands; return whether that is elsewhere than before."""
        if result.refused:
            log.info("trigger %s: central takes no more of its log: %s", trigger.lease, result.refused)
            trigger.log.refuse()
            return True
        before = trigger.log.base
        if result.size > before + trigger.log.size:
            log.error("trigger %s: central holds %d bytes of its log, more than this worker sent", trigger.lease, result.size)
        try:
            trigger.log.advance(result.size)
        except OSError as error:
            log.error("trigger %s: its log can't be shortened: %s", trigger.lease, error)
            return False
        return trigger.log.base != before

    def _read(self, trigger: Trigger) -> bytes:
        try:
            return trigger.log.bite()
        except OSError as error:
            log.error("trigger %s: its log can't be read, the rest is lost: %s", trigger.lease, error)
            trigger.log.refuse()
            return b""

    def _done(self, trigger: Trigger, round_of: dict[Trigger, None]) -> None:
        round_of.pop(trigger, None)
        if trigger in self._ended:
            del self._ended[trigger]
            self._grown.pop(trigger, None)
            self._flushed(trigger)

    def _look_for_the_culprit(self, round_of: dict[Trigger, None], reason: str) -> None:
        """The request as a whole is refused: one log at a time, and the one that is refused alone is given up."""
        if not self._is_careful:
            self._is_careful = True
            return
        trigger = next(iter(round_of))
        log.error("trigger %s: central refuses its log: %s", trigger.lease, reason)
        trigger.log.refuse()


def _pack(body: bytes) -> bytes:
    return gzip.compress(body, compresslevel=4, mtime=0)
