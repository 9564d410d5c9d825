"""The limits on what a hostile worker or an unknown caller may hold and cost: each attack once, on the real application.

`make bench ONLY=hostile` measures the effect on others.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from airflow_remote_protocol.bounds import OLDEST_API_VERSION
from airflow_remote_protocol.codec import encode
from airflow_remote_protocol.messages import Enrolment, HeldJob, JobPhase, Poll
from airflow_remote_protocol.tokens import TOKEN_BYTES, TokenKind, make_token
from airflow_remote_protocol.version import MARKER_HEADER, PROTOCOL_VERSION
from airflow_remote_provider import compat
from airflow_remote_provider.api.admission import bodies
from airflow_remote_provider.api.admission.holdings import WORKER_BYTES
from airflow_remote_provider.api.gateway.failures import FREE
from airflow_remote_provider.definitions.grants import GrantKind
from airflow_remote_provider.ledger.fence import MOST_LOOKED_UP
from airflow_remote_provider.settings import settings
from fastapi import FastAPI

from testkit.attacker import Attacker, allow, take_over
from testkit.central import PREFIX, ServedCentral
from testkit.ledger import job_row, make_engine, record_statements, use_ledger

MIB = 1 << 20
OLD = {"airflow-api-version": OLDEST_API_VERSION}
"""For writes of jobs whose task instance does not exist in Airflow: since 2026-10-30 the Execution API looks for it."""
AT_ONCE_S = 12.0
"""Limit for an answer that does not wait for more of the attacker's input: below the 15 s for which central waits for it."""


def _head(method: str, path: str, headers: dict[str, str], length: int) -> bytes:
    lines = [f"{method} {PREFIX}/{path} HTTP/1.1", "host: central", f"content-length: {length}"]
    return "\r\n".join([*lines, *(f"{name}: {value}" for name, value in headers.items()), "\r\n"]).encode()


@contextlib.contextmanager
def _line(central: ServedCentral, *, receives: int | None = None) -> Iterator[socket.socket]:
    """Open a connection; *receives*: the size of its receive buffer in bytes."""
    with socket.socket() as line:
        if receives is not None:
            line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receives)
        line.settimeout(AT_ONCE_S)
        line.connect(("127.0.0.1", central.port))
        yield line


def _joining(token: str) -> dict[str, str]:
    return {MARKER_HEADER: PROTOCOL_VERSION, "authorization": f"Bearer {token}"}


# Unknown callers


def test_a_caller_without_a_token_is_refused_before_its_body_is_read(central: ServedCentral) -> None:
    token = make_token(TokenKind.ENROLMENT, secrets.token_bytes(TOKEN_BYTES))
    with _line(central) as line:
        line.sendall(_head("POST", "enrol", _joining(token), 4 * MIB) + b"{")
        answer = line.recv(4096)
        assert answer.startswith(b"HTTP/1.1 403"), answer
        assert b"connection: close" in answer.lower(), "otherwise the rest of the body would be received"


def test_an_enrolment_is_short_even_with_a_good_token(central: ServedCentral) -> None:
    token = central.enrolment_token(["q"])
    body = encode(Enrolment(f"w-{secrets.token_hex(4)}"))
    answer = central.request("POST", "enrol", headers=_joining(token), body=body + b" " * 65_536)
    assert answer.status == 413
    assert central.request("POST", "enrol", headers=_joining(token), body=body).status == 201, "the token was not used up"


def test_many_unknown_credentials_are_looked_up_with_few_queries(central: ServedCentral) -> None:
    answers: list[int] = []

    def ask() -> None:
        credential = make_token(TokenKind.WORKER, os.urandom(TOKEN_BYTES))
        with _line(central) as line:
            line.sendall(_head("GET", "ping", {**_joining(credential)}, 0))
            answers.append(int(line.recv(4096).split(b" ", 2)[1]))

    callers = [threading.Thread(target=ask) for _ in range(40)]
    with record_statements(compat.engine()) as statements:
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
    asked = [statement for statement in statements if "past_hash" in statement and "WHERE" in statement and " IN " in statement]
    assert set(answers) == {401}
    assert 1 <= len(asked) <= 10, f"{len(asked)} questions for {len(answers)} credentials"


# Bodies


def test_a_body_that_becomes_too_slow_is_refused(attacker: Attacker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "WINDOW_S", 1.0)
    with _line(attacker.central) as line:
        path = f"jobs/{attacker.offer.job_id}/log?offset=0"
        line.sendall(_head("POST", path, attacker.headers(), 400_000) + b"x" * 300_000)
        began = time.monotonic()
        line.settimeout(0.1)
        answer = b""
        while not answer and time.monotonic() - began < AT_ONCE_S:
            with contextlib.suppress(TimeoutError, socket.timeout):
                line.sendall(b"x")
                answer = line.recv(4096)
        assert answer.startswith(b"HTTP/1.1 408"), answer
        assert b"in the last 1 s" in answer


def test_a_worker_s_bodies_are_limited_to_its_share(attacker: Attacker, victim: Attacker) -> None:
    allow(attacker.worker.queue, GrantKind.WRITES, "*")
    path = f"jobs/{attacker.offer.job_id}/execution/variables/of-the-bounds"
    with contextlib.ExitStack() as lines:
        half_sent = [lines.enter_context(_line(attacker.central)) for _ in range(8)]
        head = _head("PUT", path, attacker.headers(), WORKER_BYTES // 4)
        body = b'{"val":"' + b"x" * (WORKER_BYTES // 4 - 10) + b'"}'
        for line in half_sent:
            line.sendall(head + body[:1])
        time.sleep(1.0)  # every announcement has arrived
        for line in half_sent:
            line.settimeout(15.0)
            line.sendall(body[1:])
        refused = sum(b"503" in line.recv(4096)[:12] for line in half_sent)
        assert refused == 4, "the announced bytes count, not the received ones"
        assert victim.send_about_job("POST", "log?offset=0", b"an honest line").status == 200
    _until(
        lambda: (
            attacker.send_about_job("PUT", "execution/variables/of-the-bounds", b'{"val": "1"}', attacker.headers() | OLD).status
            == 201
        )
    )


# Answers


def test_unread_answers_are_limited_and_do_not_affect_others(attacker: Attacker, victim: Attacker) -> None:
    from airflow.models import Variable
    from airflow.utils.session import create_session

    size = WORKER_BYTES // 2
    with create_session() as session:
        Variable.set("large", "x" * size, session=session)
    allow(attacker.worker.queue, GrantKind.VARIABLES, "large")
    request = _head("GET", f"jobs/{attacker.offer.job_id}/execution/variables/large", attacker.headers(), 0)
    with contextlib.ExitStack() as lines:
        unread = [lines.enter_context(_line(attacker.central, receives=4096)) for _ in range(8)]
        for line in unread:
            line.settimeout(30)
            line.sendall(request)
        statuses = [line.recv(12)[-3:] for line in unread]
        assert 1 <= statuses.count(b"200") <= 2, statuses
        assert statuses.count(b"503") == len(unread) - statuses.count(b"200")
        assert victim.send_about_job("POST", "log?offset=0", b"an honest line").status == 200
        whole = unread[statuses.index(b"200")]
        received = 0
        while received < size:
            received += len(whole.recv(1 << 20))
    _until(lambda: attacker.send_about_job("GET", "execution/variables/large").status == 200)


def _until(check: object, within_s: float = 15.0) -> None:
    """Wait until *check* holds: central notices the end of a connection a moment later."""
    deadline = time.monotonic() + within_s
    while not check():  # type: ignore[operator]
        assert time.monotonic() < deadline, "it never held"
        time.sleep(0.2)


# Lists


def _poll_of(attacker: Attacker, jobs: int) -> bytes:
    listed = [HeldJob(f"{number:036d}", 1, JobPhase.RUNNING) for number in range(jobs)]
    revision = attacker.worker.session.intent.revision if attacker.worker.session else 0
    return encode(Poll(0, revision, 0.0, listed))


def test_a_list_of_unknown_jobs_is_answered_in_part_and_then_refused(attacker: Attacker) -> None:
    body = _poll_of(attacker, 10_000)
    with record_statements(compat.engine()) as statements:
        answer = attacker.send("POST", "poll", body)
    assert len(json.loads(answer.body)["stops"]) == MOST_LOOKED_UP
    assert max(statement.count("?") + statement.count("%(") for statement in statements) < 3 * MOST_LOOKED_UP
    for _ in range(5):
        with record_statements(compat.engine()) as statements:
            again = attacker.send("POST", "poll", _poll_of(attacker, 3000))
        if again.status != 200:
            break
    assert (again.status, again.problem) == (503, "busy")
    assert b"or sends long lists" in again.body
    assert not [statement for statement in statements if "remote_job" in statement], "the database was asked"
    assert attacker.send("POST", "poll", _poll_of(attacker, 100)).status == 200, "an ordinary list is accepted"


# Writes


@pytest.fixture
def thrifty(central: ServedCentral, monkeypatch: pytest.MonkeyPatch) -> Iterator[Attacker]:
    """A worker of a central with the smallest possible limits of writes."""
    monkeypatch.setenv("AIRFLOW__REMOTE__WRITTEN_BYTES_PER_JOB", "65536")
    monkeypatch.setenv("AIRFLOW__REMOTE__WRITES_PER_JOB", "100")
    settings.cache_clear()
    try:
        with ServedCentral(compat.execution_api_app) as served:
            yield take_over(served)
    finally:
        settings.cache_clear()


def _accepted(attacker: Attacker, size: int, tries: int) -> tuple[int, bytes]:
    """Set variables of *size* bytes; return how many were accepted, and the body of the first refusal."""
    allow(attacker.worker.queue, GrantKind.WRITES, "*")
    for number in range(tries):
        answer = attacker.send_about_job(
            "PUT", f"execution/variables/v{number}", b'{"val":"' + b"x" * size + b'"}', attacker.headers() | OLD
        )
        if answer.status != 201:
            assert answer.problem is None, "the answer is for the task, not for the worker"
            assert answer.status == 413
            return number, answer.body
    return tries, b""


def test_a_job_that_writes_too_many_bytes_is_refused_with_the_option(thrifty: Attacker) -> None:
    taken, refusal = _accepted(thrifty, 4096, 40)
    assert 12 <= taken <= 17
    detail = json.loads(refusal)["detail"]
    assert detail["reason"] == "too_much_written"
    assert "65536 bytes ([remote] written_bytes_per_job)" in detail["message"]
    assert job_row(thrifty.offer.job_id).written_bytes <= 65536
    assert thrifty.send_about_job("GET", "execution/variables/v0").status == 403, "reads continue; this one has no grant"


def test_a_job_that_writes_too_often_is_refused_with_the_option(thrifty: Attacker) -> None:
    taken, refusal = _accepted(thrifty, 1, 150)
    assert 90 <= taken <= 110
    assert b"100 calls ([remote] writes_per_job)" in refusal
    state = f"execution/task-instances/{job_row(thrifty.offer.job_id).ti_id}/state"
    assert thrifty.send_about_job("PATCH", state, b'{"state":"failed"}').status != 413, "the task can always report its end"


# Internal errors


def test_a_job_that_provokes_errors_gets_busy_and_its_calls_are_not_made(
    _airflow: None, new_database: Callable[[str], str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made: list[str] = []

    def execution_api() -> FastAPI:
        app = FastAPI()

        @app.api_route("/{path:path}", methods=["GET", "PUT"])
        async def break_down(path: str) -> None:
            if path != "health":  # which is called when the API starts
                made.append(path)
                raise ZeroDivisionError(path)

        return app

    engine = make_engine(new_database("sqlite"))
    with use_ledger(engine, tmp_path), ServedCentral(execution_api) as served:
        attacker, victim = take_over(served), take_over(served)
        for one in (attacker, victim):
            allow(one.worker.queue, GrantKind.VARIABLES, "*")
        made.clear()
        caplog.clear()
        answers = [attacker.send_about_job("GET", "execution/variables/x") for _ in range(40)]
        assert [answer.status for answer in answers[: FREE + 1]] == [500] * (FREE + 1)
        assert {(answer.status, answer.problem) for answer in answers[FREE + 1 :]} <= {(503, "busy"), (500, "internal")}
        assert len(made) <= FREE + 3, "each of these costs a transaction and a page of central's log"
        assert int(answers[-1].headers["retry-after"]) >= 1
        assert not [record for record in caplog.records if record.exc_info and record.name.startswith("airflow_remote")]
        assert victim.send_about_job("GET", "execution/variables/x").status == 500, "another job's calls are still passed on"
    engine.dispose()
