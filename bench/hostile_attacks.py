"""The attacks of the hostile benchmark, by one stranger and by one compromised worker.

    python -m bench.hostile_attacks HOST PORT SECONDS < credentials.json

The credentials are the hostile worker's and one that was stolen from another worker. Prints `ready`; then reads the name of an
attack from each line of its standard input, runs it for SECONDS, and prints the answers as one line of JSON. The load of each
attack is limited, as its description says.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field

from airflow_remote_protocol.codec import encode
from airflow_remote_protocol.messages import HeldJob, JobPhase, Poll
from airflow_remote_protocol.tokens import TOKEN_BYTES, TokenKind, make_token
from airflow_remote_protocol.version import MARKER_HEADER, PROTOCOL_VERSION

from bench.hostile_client import CERTIFICATE_HEADER, Connection, Worker, connect_without_reading, request

MIB = 1024 * 1024
ENROLMENTS = 200
ENROLMENT_BYTES = 4 * MIB
RETRY_S = 5.0
"""The attacker's wait before a retry, varied by half of it."""
APART_S = 0.025
"""The time between the first calls of an attack, so that the load is measured and not the moment in which all connect."""
UNREAD = 40
"""The number of unread answers of 16 MiB. Before the limits existed, they used about all of the computer's spare memory."""
LISTED = 10_000
LONG_POLLS_PER_S = 4.0
"""2 % of the default of `[remote] calls_per_second`."""
STOLEN_PER_S = 100.0
UNKNOWN_PER_S = 100.0
"""The rate of strangers' calls; their cost in the server before our application receives them is not measured."""
WRITES = 60
WRITE_BYTES = 4 * MIB
ERRORS_PER_S = 60.0
WORKER_LOG_BYTES = 4_000_000
OWN_LOG_LINE = b"short\n"
UNDER_WAY = 64
"""The number of unanswered calls of a paced attack."""


@dataclass
class Attacker:
    """The target, the duration and the credentials of an attack, and central's answers."""

    host: str
    port: int
    seconds: float
    worker: Worker
    stolen: str
    answers: Counter[str] = field(default_factory=Counter)

    def connection(self) -> Connection:
        return Connection(self.host, self.port)

    async def call_at_rate(self, per_s: float, call: Callable[[Connection], Awaitable[object]]) -> None:
        """Make *call* *per_s* times a second, whether or not earlier calls have been answered."""
        end = time.monotonic() + self.seconds
        idle = [self.connection() for _ in range(UNDER_WAY)]
        running: set[asyncio.Future[None]] = set()

        async def one(connection: Connection) -> None:
            with self.count_failures():
                await call(connection)
            idle.append(connection)

        due = time.monotonic()
        while time.monotonic() < end:
            due += 1 / per_s
            if idle:
                future = asyncio.ensure_future(one(idle.pop()))
                running.add(future)
                future.add_done_callback(running.discard)
            await asyncio.sleep(max(0.0, due - time.monotonic()))
        for future in running:
            future.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        for connection in idle:
            connection.close()

    async def send_request(
        self, connection: Connection, method: str, path: str, headers: dict[str, str], body: bytes = b""
    ) -> int:
        answer = await connection.send_request(method, path, headers, body)
        self.answers[str(answer.status)] += 1
        return answer.status

    @contextlib.contextmanager
    def count_failures(self) -> Iterator[None]:
        try:
            yield
        except (OSError, EOFError, asyncio.TimeoutError) as error:
            self.answers[type(error).__name__] += 1


async def half_sent_enrolments(attacker: Attacker) -> None:
    """A stranger sends 200 enrolments of 4 MiB up to the last bytes, then one byte a second, and retries after a disconnect."""

    async def one(number: int) -> None:
        await asyncio.sleep(number * APART_S)
        while True:
            with attacker.count_failures():
                await send()
            await _wait_before_retry()

    async def send() -> None:
        token = make_token(TokenKind.ENROLMENT, os.urandom(TOKEN_BYTES))
        headers = {MARKER_HEADER: PROTOCOL_VERSION, "authorization": f"Bearer {token}", CERTIFICATE_HEADER: "CN=stranger"}
        _, writer = await asyncio.open_connection(attacker.host, attacker.port)
        try:
            writer.write(request("POST", "enrol", headers, ENROLMENT_BYTES))
            for _ in range(ENROLMENT_BYTES // (64 * 1024) - 1):
                writer.write(b" " * (64 * 1024))
                await writer.drain()
            while True:
                await asyncio.sleep(1)
                writer.write(b" ")
                await writer.drain()
        finally:
            writer.close()

    await _run_for_duration(attacker, [one(number) for number in range(ENROLMENTS)])


async def unread_answers(attacker: Attacker) -> None:
    """A worker requests a value of 16 MiB on 40 connections and reads only the status of each answer."""
    path = f"jobs/{attacker.worker.offer.job_id}/execution/variables/large" if attacker.worker.offer else ""
    loop = asyncio.get_running_loop()

    async def one(number: int) -> None:
        await asyncio.sleep(number * APART_S)
        while True:
            with attacker.count_failures():
                line = await connect_without_reading(attacker.host, attacker.port)
                try:
                    await loop.sock_sendall(line, request("GET", path, attacker.worker.job_headers(), 0))
                    status = (await loop.sock_recv(line, len("HTTP/1.1 200")))[-3:].decode()
                    attacker.answers[status] += 1
                    if status == "200":
                        await asyncio.sleep(attacker.seconds)
                finally:
                    line.close()
            await _wait_before_retry()

    await _run_for_duration(attacker, [one(number) for number in range(UNREAD)])


async def long_polls(attacker: Attacker) -> None:
    """A worker's polls list 10,000 jobs that it never had, four polls a second."""
    jobs = [HeldJob(f"{number:036d}", 1, JobPhase.RUNNING) for number in range(LISTED)]
    body = encode(Poll(0, attacker.worker.revision, 0.0, jobs))
    await attacker.call_at_rate(
        LONG_POLLS_PER_S, lambda line: attacker.send_request(line, "POST", "poll", attacker.worker.headers, body)
    )


async def stolen_credential(attacker: Attacker) -> None:
    """A stranger calls with a worker's credential, without its client certificate."""
    headers = {MARKER_HEADER: PROTOCOL_VERSION, "authorization": f"Bearer {attacker.stolen}", CERTIFICATE_HEADER: "CN=thief"}
    await attacker.call_at_rate(STOLEN_PER_S, lambda line: attacker.send_request(line, "GET", "ping", headers))


async def unknown_credentials(attacker: Attacker) -> None:
    """A stranger calls with random credentials that central never issued."""

    async def call(line: Connection) -> None:
        credential = make_token(TokenKind.WORKER, os.urandom(TOKEN_BYTES))
        headers = {MARKER_HEADER: PROTOCOL_VERSION, "authorization": f"Bearer {credential}", CERTIFICATE_HEADER: "CN=stranger"}
        await attacker.send_request(line, "POST", "poll", headers)

    await attacker.call_at_rate(UNKNOWN_PER_S, call)


async def large_writes(attacker: Attacker) -> None:
    """A job stores 60 values of 4 MiB, as fast as central accepts them."""
    assert attacker.worker.offer is not None
    path = f"jobs/{attacker.worker.offer.job_id}/execution/variables"
    value = b'{"value":"' + b"x" * WRITE_BYTES + b'"}'

    async def one(number: int) -> None:
        await asyncio.sleep(number * APART_S)
        status = 0
        while status not in (201, 413):
            connection = attacker.connection()
            with attacker.count_failures():
                status = await attacker.send_request(
                    connection, "PUT", f"{path}/big-{number}", attacker.worker.job_headers(), value
                )
            connection.close()
            await _wait_before_retry()

    await _run_for_duration(attacker, [one(number) for number in range(WRITES)])


async def server_errors(attacker: Attacker) -> None:
    """A job causes an error of the Execution API, 60 times a second: Postgres can't store NUL in a text."""
    assert attacker.worker.offer is not None
    path = f"jobs/{attacker.worker.offer.job_id}/execution/variables/broken"
    body = b'{"value":"\\u0000"}'
    await attacker.call_at_rate(
        ERRORS_PER_S, lambda line: attacker.send_request(line, "PUT", path, attacker.worker.job_headers(), body)
    )


async def worker_log(attacker: Attacker) -> None:
    """A worker ships four million bytes of its own log in lines of five characters. A user views it (see bench/hostile.py)."""
    body = OWN_LOG_LINE * (WORKER_LOG_BYTES // len(OWN_LOG_LINE))
    connection = attacker.connection()
    for offset in range(0, len(body), MIB // 2):
        path = f"log?stretch=bench&offset={offset}"
        await attacker.send_request(connection, "POST", path, attacker.worker.headers, body[offset : offset + MIB // 2])
        await asyncio.sleep(0.05)
    connection.close()


async def _wait_before_retry() -> None:
    await asyncio.sleep(RETRY_S * random.uniform(0.5, 1.5))


async def _run_for_duration(attacker: Attacker, calls: list[Awaitable[None]]) -> None:
    tasks = [asyncio.ensure_future(call) for call in calls]
    await asyncio.sleep(attacker.seconds)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


ATTACKS: dict[str, Callable[[Attacker], Awaitable[None]]] = {
    "half_sent_enrolments": half_sent_enrolments,
    "unknown_credentials": unknown_credentials,
    "stolen_credential": stolen_credential,
    "long_polls": long_polls,
    "own_log": worker_log,
    "unread_answers": unread_answers,
    "large_writes": large_writes,
    "server_errors": server_errors,
}
"""In the order of the run. Central can refuse a job whose calls failed for some time, so `server_errors` comes last."""


async def main() -> int:
    host, port, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    os.nice(10)  # the attacker would have its own computer; its CPU must not slow central down
    own, stolen = json.loads(sys.stdin.readline())
    attacker = Attacker(host, port, seconds, Worker(Connection(host, port), own), stolen)
    await attacker.worker.begin()
    attacker.worker.connection.close()
    print("ready", flush=True)
    loop = asyncio.get_running_loop()
    while name := (await loop.run_in_executor(None, sys.stdin.readline)).strip():
        attacker.answers.clear()
        await ATTACKS[name](attacker)
        print(json.dumps(attacker.answers), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
