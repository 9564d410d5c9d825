"""Downloads of code by a worker that was taken over: many at once, never read, of others' trees, with forged names."""

from __future__ import annotations

import contextlib
import random
import socket
from collections.abc import Iterator
from functools import partial

import pytest
from airflow_remote_protocol.messages import MAX_STATEMENT, MAX_STATEMENTS
from airflow_remote_provider import compat
from airflow_remote_provider.api.admission.downloads import OF_WORKER
from airflow_remote_provider.ledger import statements
from airflow_remote_provider.ledger.errors import Impossible
from starlette.applications import Starlette
from starlette.middleware.gzip import GZipMiddleware
from starlette.routing import Route
from starlette.testclient import TestClient

from testkit.attacker import Attacker
from testkit.central import PREFIX
from testkit.processes import wait_until
from testkit.signing import SigningKey

MIB = 1 << 20


@pytest.fixture
def tree(attacker: Attacker) -> str:
    """A tree of the attacker's job: 12 MiB that can't be compressed."""
    digest = attacker.central.publish({f"{number}.bin": random.Random(number).randbytes(4 * MIB) for number in range(3)})
    attacker.central.run_tree(attacker.offer.job_id, digest)
    return digest


@contextlib.contextmanager
def _download(attacker: Attacker, path: str) -> Iterator[socket.socket]:
    """Ask for *path* and yield the connection, of which only the status line has been read."""
    headers = "".join(f"{name}: {value}\r\n" for name, value in attacker.headers().items())
    with socket.create_connection(("127.0.0.1", attacker.central.port), timeout=20) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.sendall(f"GET {PREFIX}/{path} HTTP/1.1\r\nhost: central\r\n{headers}\r\n".encode())
        assert connection.recv(13) == b"HTTP/1.1 200 "
        yield connection


def _wait_for_a_place(attacker: Attacker, tree: str) -> None:
    def has_place() -> bool:
        return attacker.send("GET", f"trees/{tree}/pack", headers=attacker.headers(range="bytes=0-9")).status == 206

    wait_until(has_place, timeout_s=60, what="a place for another download")


def test_downloads_that_are_never_read_take_only_the_workers_own_places(attacker: Attacker, victim: Attacker, tree: str) -> None:
    small = victim.central.publish({"a": b"a"})
    victim.central.run_tree(victim.offer.job_id, small)
    with contextlib.ExitStack() as connections:
        for _ in range(OF_WORKER):
            connections.enter_context(_download(attacker, f"trees/{tree}/pack"))
        refused = attacker.send("GET", f"trees/{tree}/pack")
        assert (refused.status, refused.problem) == (503, "busy")
        assert 1 <= int(refused.headers["retry-after"]) <= 4
        assert victim.send("GET", "ping").status == 200
        assert victim.send("GET", f"trees/{small}/pack").status == 200
        assert attacker.send("GET", "ping").status == 200
    _wait_for_a_place(attacker, tree)


def test_a_download_that_is_abandoned_is_not_read_to_its_end(attacker: Attacker, tree: str) -> None:
    for _ in range(3 * OF_WORKER):
        _wait_for_a_place(attacker, tree)
        with _download(attacker, f"trees/{tree}/pack"):
            pass


def test_many_bases_hold_up_nobody(attacker: Attacker, victim: Attacker) -> None:
    tree = attacker.central.publish({"a": b"a"})
    attacker.central.run_tree(attacker.offer.job_id, tree)
    answers = [attacker.send("GET", f"trees/{tree}/pack?base={number:064x}") for number in range(150)]
    assert {answer.problem for answer in answers} <= {None, "busy"}, "each counts as several calls"
    assert len({answer.body for answer in answers if answer.problem is None}) == 1
    assert victim.send("GET", "ping").status == 200


@pytest.mark.parametrize(
    "name", ["..", "%2e%2e", "%2f", "a%2fb", "0" * 63, "0" * 65, "A" * 64, "%00" * 64, "0" * 10_000, "%D9%A0" * 64]
)
def test_a_forged_digest_is_not_found(attacker: Attacker, name: str) -> None:
    for method, path in (("GET", "pack"), ("POST", "blobs")):
        answer = attacker.send(method, f"trees/{name}/{path}", b'{"blobs": ["%s"]}' % (b"0" * 64))
        assert answer.status in (400, 404), answer


def test_a_tree_can_t_be_had_through_another_job(attacker: Attacker, victim: Attacker) -> None:
    secret = victim.central.publish({"secret.py": b"PASSWORD = 1"})
    victim.central.run_tree(victim.offer.job_id, secret)
    own = attacker.central.publish({"a": b"a"})
    attacker.central.run_tree(attacker.offer.job_id, own)
    assert attacker.send("GET", f"trees/{secret}/pack").problem == "not-found"
    with_base = attacker.send("GET", f"trees/{own}/pack?base={secret}")
    assert with_base.status == 200 and b"PASSWORD" not in with_base.body
    assert attacker.send("GET", f"trees/{secret}/pack?base={own}").problem == "not-found"


def test_a_worker_whose_job_was_revoked_gets_nothing_more(attacker: Attacker, tree: str) -> None:
    assert attacker.send("GET", f"trees/{tree}/pack", headers=attacker.headers(range="bytes=0-9")).status == 206
    attacker.central.lose_job(attacker.offer.job_id)
    assert attacker.send("GET", f"trees/{tree}/pack").problem == "not-found"


def test_other_methods_are_refused(attacker: Attacker, tree: str) -> None:
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        assert attacker.send(method, f"trees/{tree}/pack").status in (404, 405)
    head = attacker.send("HEAD", f"trees/{tree}/pack")
    assert head.status == 200 and int(head.headers["content-length"]) > 12 * MIB and head.body == b""


def test_airflows_compression_leaves_packs_alone() -> None:
    """Starlette's middleware, which Airflow puts around all of its API, compresses what a client accepts compressed."""
    from airflow_remote_provider.api.worker_v1.sending import Endpoint, StreamedResponse
    from airflow_remote_provider.api.worker_v1.trees import HEADERS

    async def windows():  # type: ignore[no-untyped-def]
        yield b"x" * 5000

    async def answer(_: object) -> StreamedResponse:
        return StreamedResponse(windows(), 206, {**HEADERS, "content-length": "5000"})

    app = GZipMiddleware(Starlette(routes=[Route("/", Endpoint(answer))]), minimum_size=100)
    response = TestClient(app).get("/", headers={"accept-encoding": "gzip"})
    assert (response.status_code, response.headers["content-encoding"], response.headers["content-length"]) == (
        206,
        "identity",
        "5000",
    )


def test_statements_about_other_trees_are_not_shown_and_can_not_be_added(attacker: Attacker) -> None:
    own, secret = attacker.central.publish({"a": b"a"}), attacker.central.publish({"b": b"b"})
    attacker.central.run_tree(attacker.offer.job_id, own)
    key = SigningKey()
    for digest in (own, secret):
        envelope = key.sign(digest)
        compat.in_transaction(partial(statements.add, digest=digest, envelope=envelope, by="ann"))
    shown = attacker.send("GET", f"trees/{own}/statements")
    assert (shown.status, shown.body.count(b"payloadType")) == (200, 1)
    for digest in (secret, "0" * 64):
        assert attacker.send("GET", f"trees/{digest}/statements").problem == "not-found"
    for method in ("POST", "PUT", "DELETE"):
        assert attacker.send(method, f"trees/{own}/statements", b"{}").status in (404, 405)


def test_an_answer_with_statements_is_bounded(attacker: Attacker) -> None:
    tree = attacker.central.publish({"a": b"a"})
    attacker.central.run_tree(attacker.offer.job_id, tree)
    for number in range(MAX_STATEMENTS):
        with contextlib.suppress(Impossible):
            compat.in_transaction(partial(statements.add, digest=tree, envelope=SigningKey().sign(tree), by="ann"))
        of_keys = SigningKey().hand_over_to(SigningKey(), serial=number)
        digest = statements.open_envelope(of_keys)[1].digest
        compat.in_transaction(partial(statements.add, digest=digest, envelope=of_keys, by="ann"))
    shown = attacker.send("GET", f"trees/{tree}/statements")
    assert shown.body.count(b"payloadType") == MAX_STATEMENTS
    assert len(shown.body) < MAX_STATEMENTS * 2 * MAX_STATEMENT
