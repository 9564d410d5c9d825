"""The attacks of the hostile benchmark: what one stranger, and one worker that was taken over, do to central.

    python -m bench.hostile_attacks HOST PORT SECONDS < credentials.json

The credentials are the hostile worker's and one that was stolen from another worker. Prints `ready`; then takes the name of an
attack from each line of its standard input, runs it for so many seconds, and prints what came of it as one line of JSON. The
loads are bounded: each attack says how much it sends.
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
"""How soon an attacker that was sent away comes again, half as much more or less."""
APART_S = 0.025
"""Between the first calls of an attack: what is measured is what they cost together, not the moment in which they all connect."""
UNREAD = 40
"""Unread answers of 16 MiB: on the code before bounds about as many bytes as the machine can spare."""
LISTED = 10_000
LONG_POLLS_PER_S = 4.0
"""2 % of what `[remote] calls_per_second` allows unless it is set."""
STOLEN_PER_S = 100.0
UNKNOWN_PER_S = 100.0
"""Of the strangers' calls: what they cost the server before our application sees them is not what is measured."""
WRITES = 60
WRITE_BYTES = 4 * MIB
ERRORS_PER_S = 60.0
WORKER_LOG_BYTES = 4_000_000
OWN_LOG_LINE = b"short\n"
UNDER_WAY = 64
"""How many calls of a paced attack wait for their answers at the same time."""


@dataclass
class Attacker:
    """Who attacks whom, for how long, and what central answered."""

    host: str
    port: int
    seconds: float
    worker: Worker
    stolen: str
    answers: Counter[str] = field(default_factory=Counter)

    def connection(self) -> Connection:
        return Connection(self.host, self.port)

    async def at_pace(self, per_s: float, call: Callable[[Connection], Awaitable[object]]) -> None:
        """Make *call* so many times a second, whether or not the calls before have been answered."""
        end = time.monotonic() + self.seconds
        idle = [self.connection() for _ in range(UNDER_WAY)]
        running: set[asyncio.Future[None]] = set()

        async def one(connection: Connection) -> None:
            with self.failures_counted():
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

    async def ask(self, connection: Connection, method: str, path: str, headers: dict[str, str], body: bytes = b"") -> int:
        answer = await connection.ask(method, path, headers, body)
        self.answers[str(answer.status)] += 1
        return answer.status

    @contextlib.contextmanager
    def failures_counted(self) -> Iterator[None]:
        try:
            yield
        except (OSError, EOFError, asyncio.TimeoutError) as error:
            self.answers[type(error).__name__] += 1


async def half_sent_enrolments(attacker: Attacker) -> None:
    """A stranger sends 200 enrolments of 4 MiB up to their last bytes, then a byte a second; and again when central hangs up."""

    async def one(number: int) -> None:
        await asyncio.sleep(number * APART_S)
        while True:
            with attacker.failures_counted():
                await send()
            await _before_the_next_try()

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

    await _for_a_while(attacker, [one(number) for number in range(ENROLMENTS)])


async def unread_answers(attacker: Attacker) -> None:
    """A worker asks for a value of 16 MiB on 40 connections, and reads no more of an answer than its status."""
    path = f"jobs/{attacker.worker.offer.job_id}/execution/variables/large" if attacker.worker.offer else ""
    loop = asyncio.get_running_loop()

    async def one(number: int) -> None:
        await asyncio.sleep(number * APART_S)
        while True:
            with attacker.failures_counted():
                line = await connect_without_reading(attacker.host, attacker.port)
                try:
                    await loop.sock_sendall(line, request("GET", path, attacker.worker.about_job(), 0))
                    status = (await loop.sock_recv(line, len("HTTP/1.1 200")))[-3:].decode()
                    attacker.answers[status] += 1
                    if status == "200":
                        await asyncio.sleep(attacker.seconds)
                finally:
                    line.close()
            await _before_the_next_try()

    await _for_a_while(attacker, [one(number) for number in range(UNREAD)])


async def long_polls(attacker: Attacker) -> None:
    """A worker's polls list 10,000 jobs that it never had, four times a second."""
    jobs = [HeldJob(f"{number:036d}", 1, JobPhase.RUNNING) for number in range(LISTED)]
    body = encode(Poll(0, attacker.worker.revision, 0.0, jobs))
    await attacker.at_pace(LONG_POLLS_PER_S, lambda line: attacker.ask(line, "POST", "poll", attacker.worker.headers, body))


async def stolen_credential(attacker: Attacker) -> None:
    """A stranger calls with a worker's credential, without its client certificate."""
    headers = {MARKER_HEADER: PROTOCOL_VERSION, "authorization": f"Bearer {attacker.stolen}", CERTIFICATE_HEADER: "CN=thief"}
    await attacker.at_pace(STOLEN_PER_S, lambda line: attacker.ask(line, "GET", "ping", headers))


async def unknown_credentials(attacker: Attacker) -> None:
    """A stranger calls with credentials that central never gave out, each another one."""

    async def call(line: Connection) -> None:
        credential = make_token(TokenKind.WORKER, os.urandom(TOKEN_BYTES))
        headers = {MARKER_HEADER: PROTOCOL_VERSION, "authorization": f"Bearer {credential}", CERTIFICATE_HEADER: "CN=stranger"}
        await attacker.ask(line, "POST", "poll", headers)

    await attacker.at_pace(UNKNOWN_PER_S, call)


async def large_writes(attacker: Attacker) -> None:
    """A job stores 60 values of 4 MiB, as fast as central takes them."""
    assert attacker.worker.offer is not None
    path = f"jobs/{attacker.worker.offer.job_id}/execution/variables"
    value = b'{"value":"' + b"x" * WRITE_BYTES + b'"}'

    async def one(number: int) -> None:
        await asyncio.sleep(number * APART_S)
        status = 0
        while status not in (201, 413):
            connection = attacker.connection()
            with attacker.failures_counted():
                status = await attacker.ask(connection, "PUT", f"{path}/big-{number}", attacker.worker.about_job(), value)
            connection.close()
            await _before_the_next_try()

    await _for_a_while(attacker, [one(number) for number in range(WRITES)])


async def server_errors(attacker: Attacker) -> None:
    """A job provokes an error of the Execution API, 60 times a second: Postgres stores no NUL in a text."""
    assert attacker.worker.offer is not None
    path = f"jobs/{attacker.worker.offer.job_id}/execution/variables/broken"
    body = b'{"value":"\\u0000"}'
    await attacker.at_pace(ERRORS_PER_S, lambda line: attacker.ask(line, "PUT", path, attacker.worker.about_job(), body))


async def worker_log(attacker: Attacker) -> None:
    """A worker ships four million bytes of its own log in lines of five characters. A user looks at it (see the main program)."""
    body = OWN_LOG_LINE * (WORKER_LOG_BYTES // len(OWN_LOG_LINE))
    connection = attacker.connection()
    for offset in range(0, len(body), MIB // 2):
        path = f"log?stretch=bench&offset={offset}"
        await attacker.ask(connection, "POST", path, attacker.worker.headers, body[offset : offset + MIB // 2])
        await asyncio.sleep(0.05)
    connection.close()


async def _before_the_next_try() -> None:
    await asyncio.sleep(RETRY_S * random.uniform(0.5, 1.5))


async def _for_a_while(attacker: Attacker, calls: list[Awaitable[None]]) -> None:
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
"""In the order of the run: a job whose calls failed may be sent away for a while, so that attack comes last."""


async def main() -> int:
    host, port, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    os.nice(10)  # what the attacker's own machine would do must not be taken from central's
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
