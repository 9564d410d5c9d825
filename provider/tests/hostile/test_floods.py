"""Too large, too deep, too slow: limits on a worker's input and its cost."""

from __future__ import annotations

import contextlib
import gzip
import http.client
import json
import select
import socket
import threading
import zlib

import pytest
from airflow_remote_provider import compat
from airflow_remote_provider.api.admission import bodies
from airflow_remote_provider.definitions.grants import GrantKind

from testkit.attacker import LOG_LIMIT, Attacker, allow
from testkit.central import PREFIX
from testkit.ledger import job_row

MIB = 1 << 20


# Logs


@pytest.fixture(scope="session")
def bomb() -> bytes:
    """250 MiB in less than one. To pack it takes seconds."""
    packed = gzip.compress(bytes(1000 * MIB // 4), 9)
    assert len(packed) < MIB
    return packed


def test_a_gzip_bomb_is_refused_and_writes_nothing(attacker: Attacker, bomb: bytes) -> None:
    answer = attacker.send_about_job("POST", "log?offset=0", bomb, attacker.headers(content_encoding="gzip"))
    assert (answer.status, answer.problem) == (413, "too-large")
    assert attacker.central.log_bytes(attacker.offer.job_id) == b""


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"not gzip",
        gzip.compress(b"cut off")[:-4],
        gzip.compress(b"a") + b"and what follows",
        gzip.compress(b"one") + gzip.compress(b"two"),
        zlib.compress(b"zlib"),
        gzip.compress(gzip.compress(b"x"))[:10],
    ],
    ids=["empty", "not-gzip", "cut-off", "trailing", "two-members", "zlib", "header-only"],
)
def test_invalid_gzip_is_refused(attacker: Attacker, body: bytes) -> None:
    answer = attacker.send_about_job("POST", "log?offset=0", body, attacker.headers(content_encoding="gzip"))
    assert answer.problem == "invalid"
    assert attacker.central.log_bytes(attacker.offer.job_id) == b""


def test_a_log_grows_to_its_limit_and_then_has_a_note(attacker: Attacker) -> None:
    chunk = b"x" * 20_000
    offset = 0
    while (answer := attacker.send_about_job("POST", f"log?offset={offset}", chunk)).status == 200:
        offset = json.loads(answer.body)["size"]
        assert offset <= LOG_LIMIT
    assert answer.problem == "invalid"
    assert b"log_bytes_per_job" in answer.body
    held = attacker.central.log_bytes(attacker.offer.job_id)
    assert held.startswith(b"x" * LOG_LIMIT)
    assert held.count(b"log_bytes_per_job") == 1
    for offset in (0, LOG_LIMIT, len(held), 1 << 40):
        assert attacker.send_about_job("POST", f"log?offset={offset}", b"more").problem == "invalid"
    assert attacker.central.log_bytes(attacker.offer.job_id) == held


def test_a_job_whose_log_was_cut_can_still_be_reported(attacker: Attacker) -> None:
    attacker.send_about_job("POST", "log?offset=0", b"x" * (LOG_LIMIT + 1))
    assert attacker.send_about_job("POST", "report", b'{"outcome":"succeeded"}').status == 204


@pytest.mark.parametrize(
    "offset", ["-1", "1", "9" * 400, "9" * 5000, "1e3", "0x0", "", "%00", "0&offset=3", "0.0", "NaN", "%C2%B2"]
)
def test_no_offset_writes_outside_the_log(attacker: Attacker, offset: str) -> None:
    assert attacker.send_about_job("POST", "log?offset=0", b"first").status == 200
    answer = attacker.send_about_job("POST", f"log?offset={offset}", b"x" * 10)
    assert answer.status in (409, 422)
    assert attacker.central.log_bytes(attacker.offer.job_id)[:5] == b"first"
    assert len(attacker.central.log_bytes(attacker.offer.job_id)) in (5, 15)


def test_hundreds_of_chunks_of_one_byte_are_joined(attacker: Attacker) -> None:
    line = http.client.HTTPConnection("127.0.0.1", attacker.central.port, timeout=20)
    for offset in range(300):
        line.request("POST", f"{PREFIX}/jobs/{attacker.offer.job_id}/log?offset={offset}", b"x", attacker.headers())
        assert json.loads(line.getresponse().read()) == {"size": offset + 1}
    line.close()
    assert attacker.central.log_bytes(attacker.offer.job_id) == b"x" * 300


# Messages


def _nested(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


HUGE = [
    b'{"outcome":"failed","reason":"' + b"x" * (5 * MIB) + b'"}',
    b'{"outcome":"failed","reason":"' + b"x" * 2001 + b'"}',
    b'{"outcome":"failed","log_sha256":"' + b"0" * 65 + b'"}',
    b'{"outcome":"failed","exit_code":99999999999}',
    b'{"outcome":"failed","log_size":-1}',
    b'{"outcome":"failed","log_size":99999999999999999999999}',
    b'{"outcome":"failed","exit_code":' + b"9" * 100_000 + b"}",
    b'{"outcome":"failed","x":' + _nested(100_000) + b"}",
    _nested(1_000_000),
    b"[" * MIB,
    b'{"outcome":"exploded"}',
    b'{"outcome":"failed","reason":"\xff"}',
    b'{"outcome":"failed","reason":"\\ud800"}',
    b"",
    b"null",
]


@pytest.mark.parametrize("body", HUGE, ids=range(len(HUGE)))
@pytest.mark.parametrize("path", ["jobs/{job}/report", "jobs/{job}/decline", "poll", "session"])
def test_huge_deep_and_broken_messages_are_refused(attacker: Attacker, body: bytes, path: str) -> None:
    answer = attacker.send("POST", path.format(job=attacker.offer.job_id), body)
    assert answer.problem in ("invalid", "too-large", "superseded")
    assert job_row(attacker.offer.job_id).state == "running"


def test_a_poll_of_too_many_jobs_is_refused(attacker: Attacker) -> None:
    jobs = ",".join(f'{{"job_id":"{n}","epoch":1,"phase":"running"}}' for n in range(10_001))
    body = f'{{"free_slots":0,"intent_revision":0,"wait_s":0,"jobs":[{jobs}]}}'
    assert attacker.send("POST", "poll", body.encode()).problem == "invalid"


@pytest.mark.parametrize("depth", [900, 5_000, 200_000])
def test_deep_json_through_the_gateway_causes_no_internal_error(attacker: Attacker, depth: int) -> None:
    task = job_row(attacker.offer.job_id)
    xcom = f"execution/xcoms/{task.dag_id}/{task.run_id}/{task.task_id}/k"
    state = f"execution/task-instances/{task.ti_id}/state"
    for method, path, body in (
        ("POST", xcom, _nested(depth)),
        ("PATCH", state, b'{"state":' + _nested(depth) + b"}"),
        ("PATCH", state, b'{"state":"deferred","classpath":"a.B","trigger_kwargs":{"a":' + _nested(depth) + b"}}"),
    ):
        answer = attacker.send_about_job(method, path, body)
        assert answer.status < 500, (path, answer.status, answer.body[:200])


def test_a_body_over_the_gateway_s_limit_is_refused(attacker: Attacker, monkeypatch: pytest.MonkeyPatch) -> None:
    allow(attacker.worker.queue, GrantKind.WRITES, "*")
    allow(attacker.worker.queue, GrantKind.VARIABLES, "x")
    with contextlib.suppress(ConnectionError):  # central closes during the body; the answer may or may not arrive
        answer = attacker.send_about_job("PUT", "execution/variables/x", b'{"val": "' + b"x" * (129 * MIB) + b'"}')
        assert (answer.status, answer.problem) == (413, "too-large")
    assert attacker.send_about_job("GET", "execution/variables/x").status == 404, "nothing was set"


# Slow bodies


def _request(attacker: Attacker, path: str, body: bytes, *, length: int | None = None) -> bytes:
    headers = attacker.headers() | {"host": "central", "content-length": str(len(body) if length is None else length)}
    head = f"POST {PREFIX}/jobs/{attacker.offer.job_id}/{path} HTTP/1.1\r\n" + "".join(
        f"{k}: {v}\r\n" for k, v in headers.items()
    )
    return head.encode() + b"\r\n" + body


@pytest.mark.parametrize("path", ["report", "decline", "log?offset=0", "execution/variables/plant"])
def test_a_trickling_body_is_refused_and_does_not_delay_others(
    attacker: Attacker, victim: Attacker, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bodies, "WINDOW_S", 6.0)  # a busy computer may stall for seconds
    lines = [socket.create_connection(("127.0.0.1", attacker.central.port), timeout=20) for _ in range(60)]
    enough = threading.Event()

    def trickle() -> None:
        while not enough.wait(0.1):
            for line in lines:
                try:
                    line.sendall(b" ")
                except OSError:  # central has closed the connection, as it should
                    return

    try:
        for line in lines:
            line.sendall(_request(attacker, path, b"{", length=100_000))
        trickling = threading.Thread(target=trickle)
        trickling.start()
        assert victim.send_about_job("POST", "log?offset=0", b"an honest line").status == 200
        cut_off, _, _ = select.select(lines, [], [], 0)
        assert not cut_off, "an honest worker waited until the slow one was refused"
        for line in lines:
            answer = line.recv(4096)
            assert answer.startswith(b"HTTP/1.1 408"), answer
            assert b"too-slow" in answer
    finally:
        enough.set()
        trickling.join()
        for line in lines:
            line.close()
    assert compat.engine() is not None
    assert attacker.send_about_job("POST", "log?offset=0", b"and the slow one may make other calls").status == 200
