"""A fleet of idle workers in one cheap process: each has a connection and a session of its own, and a poll that is always open.

    python -m bench.fleet_simulator HOST PORT < credentials.json

Prints `ready` when every worker has a session and its first poll is out; polls on until its standard input is closed; then prints
what happened as one line of JSON. Speaks HTTP/1.1 itself: a client library would cost more than central.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import sys
import uuid
from collections import Counter
from dataclasses import dataclass, field

from airflow_remote_protocol.codec import decode, encode
from airflow_remote_protocol.messages import Facts, Message, Poll, PollReply, Session, SessionRequest
from airflow_remote_protocol.version import MARKER_HEADER, PROTOCOL_VERSION, SESSION_HEADER, Capability

OPENING = 16
"""How many workers open their session at a time: the fleet is to be there soon, not to be a test of its own."""
MARGIN_S = 15.0
"""How much longer than it asked for a worker waits for a poll's answer: what a real one allows, too."""


class Wrong(Exception):
    """An answer that a worker must not get."""


@dataclass
class Fleet:
    """What all workers share, and what is counted of them."""

    host: str
    port: int
    opening: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(OPENING))
    parked: int = 0
    polls: int = 0
    errors: Counter[str] = field(default_factory=Counter)


class SimulatedWorker:
    """One idle worker."""

    def __init__(self, fleet: Fleet, credential: str) -> None:
        self._fleet = fleet
        self._credential = credential
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._session: Session | None = None
        self._instance = str(uuid.uuid4())

    async def run(self) -> None:
        """Open a session and poll until cancelled; errors are counted, and the worker tries again as a real one would."""
        counted = False
        while True:
            try:
                async with self._fleet.opening:
                    await self._open()
                assert self._session is not None
                # Real workers started at different times: from the first poll on, every moment is as busy as any other.
                wait_s = random.uniform(0.0, self._session.poll_s)
                while True:
                    if not counted:
                        self._fleet.parked += 1
                        counted = True
                    reply = await self._call(PollReply, "poll", self._poll(wait_s), wait_s + MARGIN_S)
                    self._fleet.polls += 1
                    wait_s = reply.poll_s
            except (OSError, EOFError, Wrong, asyncio.TimeoutError) as error:
                self._fleet.errors[f"{type(error).__name__}: {error}"[:200]] += 1
                self._close()
                await asyncio.sleep(random.uniform(1.0, 2.0))
            finally:
                if sys.exc_info()[0] is asyncio.CancelledError:
                    self._close()

    async def _open(self) -> None:
        request = SessionRequest(
            instance_id=self._instance,
            boot_id=str(uuid.uuid4()),
            protocol=PROTOCOL_VERSION,
            capabilities=[capability.value for capability in Capability],
            slots=4,
            facts=Facts(hostname="simulated"),
        )
        self._session = None
        self._session = await self._call(Session, "session", request, 60.0)

    def _poll(self, wait_s: float) -> Poll:
        assert self._session is not None
        return Poll(free_slots=4, intent_revision=self._session.intent.revision, wait_s=wait_s)

    async def _call(self, kind: type, path: str, message: Message, timeout_s: float):
        """Send a message and return the answer.

        Raises:
            Wrong: any status but 200. OSError, EOFError, asyncio.TimeoutError: the connection failed.
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
        status, answer = await asyncio.wait_for(_read(reader), timeout_s)
        if status != 200:
            raise Wrong(f"{path}: {status} {answer[:150]!r}")
        return decode(kind, answer)

    def _close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


async def _read(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
    return int(head[0].split(" ", 2)[1]), await reader.readexactly(int(headers.get("content-length", "0")))


async def simulate(host: str, port: int, credentials: list[str]) -> dict[str, object]:
    """Be the fleet until standard input ends; return what happened."""
    fleet = Fleet(host, port)
    workers = [asyncio.ensure_future(SimulatedWorker(fleet, credential).run()) for credential in credentials]
    while fleet.parked < len(workers):
        await asyncio.sleep(0.1)
    print("ready", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    for worker in workers:
        worker.cancel()
    for worker in workers:
        with contextlib.suppress(asyncio.CancelledError):
            await worker
    return {"workers": len(workers), "polls": fleet.polls, "errors": dict(fleet.errors)}


def main() -> int:
    credentials = json.loads(sys.stdin.readline())
    print(json.dumps(asyncio.run(simulate(sys.argv[1], int(sys.argv[2]), credentials))), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
