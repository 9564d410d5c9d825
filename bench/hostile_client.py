"""The workers of the hostile benchmark: they write HTTP/1.1 themselves, so that a client uses less CPU than central.

The honest workers poll five times a second, each with its one job. `python -m bench.hostile_client HOST PORT` reads their
credentials as JSON, prints `ready`, polls until its standard input closes, and prints the moment and duration of each poll.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import time
import uuid
from dataclasses import dataclass, field

from airflow_remote_protocol.codec import decode, encode
from airflow_remote_protocol.messages import (
    Facts,
    HeldJob,
    JobPhase,
    Message,
    Offer,
    Poll,
    PollReply,
    Session,
    SessionRequest,
)
from airflow_remote_protocol.version import EPOCH_HEADER, MARKER_HEADER, PROTOCOL_VERSION, SESSION_HEADER

HOSTILE = "hostile"
"""The name of the compromised worker and of its queue."""
MARK = "credentials: "
"""The prefix of the seed's output line: Airflow's start-up can print lines before it."""
CERTIFICATE_HEADER = "x-client-subject"
POLL_EVERY_S = 0.2
TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes


@dataclass
class Connection:
    """One connection to central, opened at the first request and again after a failure."""

    host: str
    port: int
    _streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def send_request(self, method: str, path: str, headers: dict[str, str], body: bytes = b"") -> Answer:
        """Send one request and return its answer.

        Raises:
            OSError, EOFError, asyncio.TimeoutError: central closed the connection or did not answer.
        """
        if self._streams is None:
            self._streams = await asyncio.open_connection(self.host, self.port)
        reader, writer = self._streams
        try:
            writer.write(request(method, path, headers, len(body)) + body)
            return await asyncio.wait_for(_read(reader), TIMEOUT_S)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


def request(method: str, path: str, headers: dict[str, str], length: int) -> bytes:
    """Return the head of a request with a body of *length* bytes. *path* is below the worker API."""
    lines = [f"{method} /remote/v1/{path} HTTP/1.1", "host: central", f"content-length: {length}"]
    return "\r\n".join([*lines, *(f"{name}: {value}" for name, value in headers.items()), "\r\n"]).encode()


async def connect_without_reading(host: str, port: int) -> socket.socket:
    """Return a connected socket with the smallest receive buffer that the kernel allows."""
    line = socket.socket()
    line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    line.setblocking(False)
    await asyncio.get_running_loop().sock_connect(line, (host, port))
    return line


async def _read(reader: asyncio.StreamReader) -> Answer:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
    status = int(head[0].split(" ", 2)[1])
    if headers.get("transfer-encoding") != "chunked":
        length = 0 if status in (204, 304) else int(headers.get("content-length", "0"))
        return Answer(status, headers, await reader.readexactly(length))
    body = bytearray()
    while size := int(await reader.readline(), 16):
        body += await reader.readexactly(size)
        await reader.readline()
    await reader.readline()
    return Answer(status, headers, bytes(body))


@dataclass
class Worker:
    """One worker: its credential, its session, its job."""

    connection: Connection
    credential: str
    headers: dict[str, str] = field(default_factory=dict)
    offer: Offer | None = None
    revision: int = 0

    async def begin(self) -> None:
        """Open a session, take the job that waits in its queue, and accept it."""
        name = uuid.uuid4().hex
        self.headers = {
            MARKER_HEADER: PROTOCOL_VERSION,
            "authorization": f"Bearer {self.credential}",
            "content-type": "application/json",
            CERTIFICATE_HEADER: f"CN={self.credential[-8:]}",
        }
        message = SessionRequest(name, name, PROTOCOL_VERSION, [], 1, Facts(hostname="bench"))
        session = decode(Session, (await self.send("session", message)).body)
        self.headers[SESSION_HEADER], self.revision = session.session_id, session.intent.revision
        for _ in range(10):
            reply = decode(PollReply, (await self.send("poll", Poll(1, self.revision, 5.0))).body)
            if reply.offers:
                self.offer = reply.offers[0]
                break
        else:
            raise RuntimeError("central did not offer the benchmark's job")
        accepted = await self.connection.send_request("POST", f"jobs/{self.offer.job_id}/accept", self.job_headers())
        if accepted.status != 204:
            raise RuntimeError(
                f"central refused the acceptance of the benchmark's job: {accepted.status} {accepted.body[:200]!r}"
            )

    def job_headers(self) -> dict[str, str]:
        """Return the headers of a call about the job."""
        assert self.offer is not None
        return self.headers | {EPOCH_HEADER: str(self.offer.epoch)}

    async def send(self, path: str, message: Message) -> Answer:
        return await self.connection.send_request("POST", path, self.headers, encode(message))

    async def poll(self) -> Answer:
        """Send a poll that requests no offer and renews the one job."""
        assert self.offer is not None
        held = HeldJob(self.offer.job_id, self.offer.epoch, JobPhase.RUNNING)
        return await self.send("poll", Poll(0, self.revision, 0.0, [held]))


async def _poll_until_cancelled(worker: Worker, polls: list[tuple[float, float]], failures: list[str]) -> None:
    """Poll at a fixed rate. The time of a refused or failed poll includes its retries: the worker waits until one succeeds."""
    while True:
        began = time.monotonic()
        while True:
            wait_s = 0.2
            try:
                answer = await worker.poll()
                if answer.status == 200:
                    break
                failures.append(f"{answer.status} {answer.body[:120]!r}")
                wait_s = float(answer.headers.get("retry-after", wait_s))
            except (OSError, EOFError, asyncio.TimeoutError) as error:
                failures.append(f"{type(error).__name__}: {error}")
            await asyncio.sleep(wait_s)
        took = time.monotonic() - began
        polls.append((began, took))
        await asyncio.sleep(max(0.01, POLL_EVERY_S - took))


async def main() -> int:
    host, port = sys.argv[1], int(sys.argv[2])
    workers = [Worker(Connection(host, port), credential) for credential in json.loads(sys.stdin.readline())]
    for worker in workers:
        await worker.begin()
    print("ready", flush=True)
    polls: list[tuple[float, float]] = []
    failures: list[str] = []
    tasks = [asyncio.ensure_future(_poll_until_cancelled(worker, polls, failures)) for worker in workers]
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    print(json.dumps({"polls": polls, "failures": failures}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
