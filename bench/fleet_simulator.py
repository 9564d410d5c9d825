"""Simulates a fleet of idle workers in one process: each has its own connection and session, and one open poll at all times.

    python -m bench.fleet_simulator HOST PORT [--at-once] < credentials.json

With `--at-once` all of them connect at the same moment, as after a power cut; otherwise a few at a time.

Prints `ready` when every worker has a session and has sent its first poll; polls until its standard input is closed; then prints
its counts as one line of JSON. Speaks HTTP/1.1 itself: a client library would use more CPU than central.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import sys
import time
import uuid
from collections import Counter
from dataclasses import dataclass, field
from typing import TypeVar

from airflow_remote_protocol.codec import decode, encode
from airflow_remote_protocol.messages import Facts, Message, Poll, PollReply, Session, SessionRequest
from airflow_remote_protocol.version import MARKER_HEADER, PROBLEM_HEADER, PROTOCOL_VERSION, SESSION_HEADER, Capability

T = TypeVar("T", bound=Message)

OPENING = 16
"""The number of workers that open their session at the same time, without `--at-once`."""
MARGIN_S = 15.0
"""The time beyond the requested wait after which a worker gives up a poll; the same as a real worker's."""


BACKOFF_S = (1.0, 30.0)
"""Floor and ceiling of a real worker's back-off."""


class Wrong(Exception):
    """An answer that a worker must not receive."""


class Busy(Exception):
    """Central is busy and named a time after which to retry."""

    def __init__(self, retry_after_s: float) -> None:
        super().__init__(f"central is busy; retry in {retry_after_s:g} s")
        self.retry_after_s = retry_after_s


@dataclass
class Fleet:
    """The settings and counters that all workers share."""

    host: str
    port: int
    opening: asyncio.Semaphore
    serving: set[str] = field(default_factory=set)
    """The instance ids of the workers that have had a session."""
    polls: int = 0
    busy: list[float] = field(default_factory=list)
    """The Retry-After times of busy answers, in seconds."""
    errors: Counter[str] = field(default_factory=Counter)


class SimulatedWorker:
    """One idle worker."""

    def __init__(self, fleet: Fleet, credential: str) -> None:
        self._fleet = fleet
        self._credential = credential
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._session: Session | None = None
        self._instance = str(uuid.uuid4())
        self._polls = 0

    async def run(self) -> None:
        """Open a session and poll until cancelled; count errors and retry as a real worker does."""
        floor_s, ceiling_s = BACKOFF_S
        failures = 0
        polls = 0
        try:
            while True:
                wait_s = min(ceiling_s, floor_s * 2.0 ** min(failures, 32)) * random.uniform(0.5, 1.0)
                try:
                    await self._serve()
                except Busy as busy:
                    self._close()  # the server closes it before the retry anyway
                    self._fleet.busy.append(busy.retry_after_s)
                    wait_s = max(wait_s, busy.retry_after_s + max(1.0, 0.1 * busy.retry_after_s) * random.random())
                except (OSError, EOFError, Wrong, asyncio.TimeoutError) as error:
                    self._fleet.errors[f"{type(error).__name__}: {error}"[:200]] += 1
                    self._close()
                failures = failures + 1 if self._polls == polls else 0
                polls = self._polls
                await asyncio.sleep(wait_s)
        finally:
            self._close()

    async def _serve(self) -> None:
        async with self._fleet.opening:
            session = await self._open()
        self._fleet.serving.add(self._instance)
        # Real workers started at different times, so their polls are spread evenly.
        wait_s = random.uniform(0.0, session.poll_s)
        while True:
            poll = Poll(free_slots=4, intent_revision=session.intent.revision, wait_s=wait_s)
            reply = await self._call(PollReply, "poll", poll, wait_s + MARGIN_S)
            self._fleet.polls += 1
            self._polls += 1
            wait_s = reply.poll_s

    async def _open(self) -> Session:
        request = SessionRequest(
            instance_id=self._instance,
            boot_id=str(uuid.uuid4()),
            protocol=PROTOCOL_VERSION,
            capabilities=[
                capability.value for capability in Capability if capability not in (Capability.RUNTIMES, Capability.RELEASES)
            ],
            slots=4,
            facts=Facts(hostname="simulated"),
        )
        self._session = None
        self._session = await self._call(Session, "session", request, 60.0)
        return self._session

    async def _call(self, kind: type[T], path: str, message: Message, timeout_s: float) -> T:
        """Send a message and return the answer.

        Raises:
            Busy: a 503 that names a time. Wrong: any other status but 200.
            OSError, EOFError, asyncio.TimeoutError: the connection failed.
        """
        if self._streams is None:
            self._streams = await asyncio.open_connection(self._fleet.host, self._fleet.port)
        reader, writer = self._streams
        body = encode(message)
        head = [
            f"POST /remote/v1/{path} HTTP/1.1",
            f"host: {self._fleet.host}:{self._fleet.port}",
            f"{MARKER_HEADER}: {PROTOCOL_VERSION}",
            f"authorization: Bearer {self._credential}",
            "content-type: application/json",
            f"content-length: {len(body)}",
        ]
        if self._session is not None:
            head.append(f"{SESSION_HEADER}: {self._session.session_id}")
        writer.write("\r\n".join([*head, "\r\n"]).encode() + body)
        status, headers, answer = await asyncio.wait_for(_read(reader), timeout_s)
        if headers.get(PROBLEM_HEADER) == "busy" and "retry-after" in headers:
            raise Busy(float(headers["retry-after"]))
        if status != 200:
            raise Wrong(f"{path}: {status} {answer[:150]!r}")
        return decode(kind, answer)

    def _close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


async def _read(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
    return int(head[0].split(" ", 2)[1]), headers, await reader.readexactly(int(headers.get("content-length", "0")))


async def simulate(host: str, port: int, credentials: list[str], *, at_once: bool = False) -> dict[str, object]:
    """Simulate the fleet until standard input ends; return the counts."""
    fleet = Fleet(host, port, asyncio.Semaphore(len(credentials) if at_once else OPENING))
    began = time.monotonic()
    workers = [asyncio.ensure_future(SimulatedWorker(fleet, credential).run()) for credential in credentials]
    while len(fleet.serving) < len(workers):
        await asyncio.sleep(0.1)
    all_back_s = time.monotonic() - began
    print("ready", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    for worker in workers:
        worker.cancel()
    for worker in workers:
        with contextlib.suppress(asyncio.CancelledError):
            await worker
    return {
        "workers": len(workers),
        "polls": fleet.polls,
        "errors": dict(fleet.errors),
        "busy": fleet.busy,
        "all_back_s": all_back_s,
    }


def main() -> int:
    credentials = json.loads(sys.stdin.readline())
    at_once = "--at-once" in sys.argv
    print(json.dumps(asyncio.run(simulate(sys.argv[1], int(sys.argv[2]), credentials, at_once=at_once))), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
