from __future__ import annotations

import gzip
import json
from collections.abc import AsyncIterator, Callable
from functools import partial

import anyio
import httpx
import pytest
from airflow_remote_protocol.codec import encode
from airflow_remote_protocol.errors import ProblemCode, make_problem
from airflow_remote_protocol.execution import DEFAULT_BODY_BYTES, ENVELOPE_BYTES
from airflow_remote_protocol.messages import (
    Enrolment,
    Facts,
    Intent,
    IntentMode,
    Outcome,
    Poll,
    PollReply,
    Pong,
    Report,
    Session,
    SessionRequest,
)
from airflow_remote_protocol.version import EPOCH_HEADER, MARKER_HEADER, PROBLEM_HEADER, PROTOCOL_VERSION, SESSION_HEADER
from airflow_remote_worker.code.fetch import PackAnswer
from airflow_remote_worker.errors import Outdated, Refused, Rewind, Superseded, Unreachable
from airflow_remote_worker.lease import Lease
from airflow_remote_worker.link.client import LARGE_BYTES, MAX_BODY, Link
from airflow_remote_worker.link.connections import CONNECTION_AGE_S
from airflow_remote_worker.link.network import Network

from ..conftest import HandClock

LEASE = Lease("job-1", 3)
OURS = {MARKER_HEADER: PROTOCOL_VERSION}


def link_to(answer: Callable[[httpx.Request], httpx.Response], clock: HandClock | None = None) -> Link:
    network = Network(central="https://a.example.com/air")
    link = Link(network, credential="cred", clock=clock or HandClock(), transport=httpx.MockTransport(answer))
    link.session_id = "s-1"
    return link


def refusing(code: ProblemCode, **more: int) -> Callable[[httpx.Request], httpx.Response]:
    body = make_problem(code, "because", **more)
    return lambda request: httpx.Response(body.status, headers={**OURS, PROBLEM_HEADER: code.value}, content=encode(body))


def test_every_request_has_credential_session_and_epoch() -> None:
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(204, headers=OURS)

    anyio.run(link_to(answer).report, LEASE, Report(outcome=Outcome.SUCCEEDED))
    (request,) = seen
    assert str(request.url) == "https://a.example.com/air/remote/v1/jobs/job-1/report"
    assert request.headers["authorization"] == "Bearer cred"
    assert request.headers[MARKER_HEADER] == PROTOCOL_VERSION
    assert request.headers[SESSION_HEADER] == "s-1"
    assert request.headers[EPOCH_HEADER] == "3"


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (ProblemCode.REVOKED, Refused),
        (ProblemCode.SUPERSEDED, Superseded),
        (ProblemCode.NOT_FOUND, Superseded),
        (ProblemCode.OUTDATED, Outdated),
        (ProblemCode.BUSY, Unreachable),
        (ProblemCode.INTERNAL, Unreachable),
    ],
)
def test_central_s_problem_is_raised_as_the_error_of_its_decision(code: ProblemCode, kind: type[Exception]) -> None:
    with pytest.raises(kind, match="because"):
        anyio.run(link_to(refusing(code)).poll, Poll(free_slots=1, intent_revision=0, wait_s=1))


def test_a_log_offset_problem_has_the_size_at_central() -> None:
    with pytest.raises(Rewind) as caught:
        anyio.run(link_to(refusing(ProblemCode.LOG_OFFSET, size=7)).append_log, LEASE, 0, b"x")
    assert caught.value.size == 7


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        (
            httpx.Response(200, headers={"content-type": "text/html; charset=utf-8"}, text="<html>"),
            "200 text/html, .*login page",
        ),
        (httpx.Response(302, headers={"location": "https://login.example.com"}), "a redirect to https://login.example.com"),
        (httpx.Response(502), "load balancer"),
        (httpx.Response(407), "the proxy requires a login"),
        (httpx.Response(200, headers={"content-type": "application/json"}, json={"poll_s": 1}), "provider is installed"),
    ],
)
def test_an_answer_without_the_marker_is_not_central_s(response: httpx.Response, expected: str) -> None:
    with pytest.raises(Unreachable, match=expected):
        anyio.run(link_to(lambda request: response).ping)


def test_retry_after_is_kept() -> None:
    body = encode(make_problem(ProblemCode.BUSY, ""))
    headers = {**OURS, PROBLEM_HEADER: "busy", "retry-after": "12"}
    with pytest.raises(Unreachable) as caught:
        anyio.run(link_to(lambda request: httpx.Response(503, headers=headers, content=body)).ping)
    assert caught.value.retry_after_s == 12


def test_an_invalid_answer_with_the_marker_is_retried() -> None:
    with pytest.raises(Unreachable, match="can't be read"):
        anyio.run(link_to(lambda request: httpx.Response(200, headers=OURS, content=b"[]")).ping)


def test_an_endless_body_is_cut_off() -> None:
    with pytest.raises(Unreachable, match="longer than"):
        anyio.run(link_to(lambda request: httpx.Response(200, headers=OURS, content=b" " * (MAX_BODY + 1))).ping)


def test_a_stale_connection_is_retried_at_once_but_only_once() -> None:
    tries: list[int] = []

    def answer(request: httpx.Request) -> httpx.Response:
        tries.append(1)
        if len(tries) == 1:
            raise httpx.RemoteProtocolError("Server disconnected without sending a response.")
        return httpx.Response(200, headers=OURS, content=encode(Pong(name="w", time=1)))

    assert anyio.run(link_to(answer).ping).name == "w"
    assert len(tries) == 2


def test_an_enrolment_is_never_repeated() -> None:
    """The first request may have used the token; a second answer would hide that."""
    tries: list[int] = []

    def answer(request: httpx.Request) -> httpx.Response:
        tries.append(1)
        raise httpx.RemoteProtocolError("Server disconnected without sending a response.")

    with pytest.raises(Unreachable):
        anyio.run(link_to(answer).enrol, Enrolment(name="w"))
    assert len(tries) == 1


def test_a_request_cut_after_a_while_is_not_retried_at_once(clock: HandClock) -> None:
    """A proxy's time limit would cut it again, and the caller needs to know after how long."""
    tries: list[int] = []

    def answer(request: httpx.Request) -> httpx.Response:
        tries.append(1)
        clock.now += 20
        raise httpx.RemoteProtocolError("Server disconnected without sending a response.")

    with pytest.raises(Unreachable, match="was cut") as caught:
        anyio.run(link_to(answer, clock).poll, Poll(free_slots=1, intent_revision=0, wait_s=50))
    assert caught.value.was_cut
    assert len(tries) == 1


@pytest.mark.parametrize(
    ("error", "was_cut"),
    [
        (httpx.ReadTimeout("x"), True),
        (httpx.ReadError("x"), True),
        (httpx.ConnectError("x"), False),
        (httpx.ConnectTimeout("x"), False),
        (httpx.ProxyError("407 x"), False),
    ],
)
def test_a_request_that_was_never_sent_was_not_cut(error: httpx.HTTPError, was_cut: bool) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        raise error

    with pytest.raises(Unreachable) as caught:
        anyio.run(link_to(answer).ping)
    assert caught.value.was_cut is was_cut


def test_errors_of_the_execution_api_are_passed_on() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        assert request.url.raw_path == b"/air/remote/v1/jobs/job-1/execution/variables/a%20b?x=1"
        assert request.headers["airflow-api-version"] == "2026"
        assert "cookie" not in request.headers
        assert request.headers["authorization"] == "Bearer cred"
        listed = {"Content-Range": "map_indexes 3", "correlation-id": "c"}
        return httpx.Response(404, headers={**OURS, "x-internal": "1", **listed}, json={"detail": "none"})

    async def call() -> None:
        headers = {"Airflow-API-Version": "2026", "Cookie": "c", "Authorization": "Bearer other"}
        executed = await link_to(answer).execution(LEASE, "GET", "variables/a%20b?x=1", headers=headers, body=b"")
        assert executed.status == 404
        assert json.loads(executed.body) == {"detail": "none"}
        assert executed.headers == {"content-type": "application/json", "content-range": "map_indexes 3", "correlation-id": "c"}

    anyio.run(call)


@pytest.mark.parametrize(
    "key", ["a/b", "/a", "a/", "//", "a%20b", "100%25", "%2F", "%2f%2f", "%C3%A9", "a+b", "a:b@c", "a%3Fb", "x//"]
)
def test_a_key_goes_to_central_as_the_task_spells_it(key: str) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        assert request.url.raw_path.decode() == f"/air/remote/v1/jobs/job-1/execution/xcoms/d/r/t/{key}?map_index=1"
        return httpx.Response(200, headers=OURS)

    anyio.run(partial(link_to(answer).execution, LEASE, "GET", f"xcoms/d/r/t/{key}?map_index=1", headers={}, body=b""))


@pytest.mark.parametrize("path", ["../report", "variables/../../report", "a/%2e%2e/b", "a/..%2Fb", "a\\..\\b", "x#y"])
def test_a_job_can_t_leave_the_execution_api(path: str) -> None:
    async def call() -> None:
        await link_to(lambda request: httpx.Response(200, headers=OURS)).execution(LEASE, "POST", path, headers={}, body=b"")

    with pytest.raises(Refused, match="not a path"):
        anyio.run(call)


def test_without_a_session_no_call_about_jobs_is_made() -> None:
    link = link_to(lambda request: httpx.Response(204, headers=OURS))
    link.session_id = None
    with pytest.raises(Unreachable, match="no session"):
        anyio.run(link.accept, LEASE)


def test_connections_are_renewed_when_old(clock: HandClock) -> None:
    link = link_to(lambda request: httpx.Response(200, headers=OURS, content=encode(PollReply(poll_s=1))), clock)

    async def main() -> None:
        poll = Poll(free_slots=1, intent_revision=0, wait_s=1)
        await link.poll(poll)
        first = link._connections._pool
        await link.poll(poll)
        assert link._connections._pool is first
        clock.now += CONNECTION_AGE_S + 1
        await link.poll(poll)
        assert link._connections._pool is not first
        assert first and first.client.is_closed
        await link.close()

    anyio.run(main)


def test_the_end_of_an_outage_wakes_waiting_callers() -> None:
    up = False

    def answer(request: httpx.Request) -> httpx.Response:
        if not up:
            raise httpx.ConnectError("no route")
        return httpx.Response(200, headers=OURS, content=encode(Pong(name="w", time=1)))

    async def main() -> None:
        nonlocal up
        link = link_to(answer)
        with pytest.raises(Unreachable, match="no route"):
            await link.ping()
        with anyio.fail_after(60):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(link.wait_for_contact, 600)
                await anyio.sleep(0.01)
                up = True
                await link.ping()

    anyio.run(main)


@pytest.mark.parametrize("lost", [1, 3])
def test_leaving_succeeds_although_the_answer_was_lost(lost: int) -> None:
    asked = 0

    def answer(request: httpx.Request) -> httpx.Response:
        nonlocal asked
        asked += 1
        if asked <= lost:
            raise httpx.ReadError("reset by peer")
        return refusing(ProblemCode.REVOKED)(request)

    anyio.run(link_to(answer).leave)
    assert asked == lost + 1


def test_a_refused_leave_is_raised() -> None:
    with pytest.raises(Superseded):
        anyio.run(link_to(refusing(ProblemCode.SUPERSEDED)).leave)


def test_leaving_fails_while_central_is_unreachable() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("no route")

    with pytest.raises(Unreachable):
        anyio.run(link_to(answer).leave)


def test_retry_after_is_respected_when_another_call_succeeds(clock: HandClock) -> None:
    answers = iter(["down", "busy", "up"])

    def answer(request: httpx.Request) -> httpx.Response:
        match next(answers):
            case "down":
                raise httpx.ConnectError("no route")
            case "busy":
                refusal = refusing(ProblemCode.BUSY)(request)
                refusal.headers["retry-after"] = "8"
                return refusal
            case _:
                return httpx.Response(200, headers=OURS, content=encode(Pong(name="w", time=1)))

    async def main() -> None:
        link = link_to(answer, clock)
        for _ in range(2):
            with pytest.raises(Unreachable):
                await link.ping()
        began = clock.now
        with anyio.fail_after(60):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(link.wait_for_contact, 600)
                await anyio.sleep(0.01)
                await link.ping()
        assert 8 <= clock.now - began < 9

    anyio.run(main)


# Sizes


def sized_link(answer: Callable[[httpx.Request], httpx.Response], body_bytes: int) -> Link:
    link = link_to(answer)
    link.body_bytes = body_bytes
    return link


def test_the_session_sets_the_limit_of_bodies() -> None:
    def session(**said: int) -> Callable[[httpx.Request], httpx.Response]:
        intent = Intent(mode=IntentMode.SERVE, revision=0)
        message = Session("s", "w", "w", PROTOCOL_VERSION, [], 1.0, 1.0, intent, **said)
        return lambda request: httpx.Response(200, headers=OURS, content=encode(message))

    for said, body_bytes in (({"body_bytes": 12345678}, 12345678), ({}, DEFAULT_BODY_BYTES), ({"body_bytes": 1 << 50}, 1 << 30)):
        link = link_to(session(**said))
        anyio.run(link.open_session, SessionRequest("i", "b", PROTOCOL_VERSION, [], 1, Facts()))
        assert link.body_bytes == body_bytes


def test_a_body_that_is_too_large_is_refused_without_being_sent() -> None:
    def never(request: httpx.Request) -> httpx.Response:
        raise AssertionError("it was sent")

    with pytest.raises(Refused, match=r"POST xcoms/d/r/t/k has 11 bytes; the limit is 10 bytes .*gateway_body_bytes") as refused:
        anyio.run(partial(sized_link(never, 10).execution, LEASE, "POST", "xcoms/d/r/t/k", headers={}, body=b"x" * 11))
    assert refused.value.concerns_one_request


@pytest.mark.parametrize("announced", [False, True])
def test_a_too_large_answer_is_refused_without_a_retry(announced: bool) -> None:
    asked: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        body = b"x" * (10 + ENVELOPE_BYTES + 1)
        return httpx.Response(200, headers=OURS, content=body if announced else iter_of(body))

    link = sized_link(answer, 10)
    with pytest.raises(Refused, match=r"answer to GET .*the limit is 10 bytes"):
        anyio.run(partial(link.execution, LEASE, "GET", "xcoms/d/r/t/k", headers={}, body=b""))
    assert len(asked) == 1
    assert not link.is_down


async def iter_of(body: bytes) -> AsyncIterator[bytes]:
    yield body


def test_a_proxy_s_body_limit_is_not_an_outage() -> None:
    link = sized_link(lambda request: httpx.Response(413, text="<html>413 Request Entity Too Large"), 100)
    with pytest.raises(Refused, match=r"a proxy .* refuses a body of 50 bytes.*client_max_body_size") as refused:
        anyio.run(partial(link.execution, LEASE, "POST", "xcoms/d/r/t/k", headers={}, body=b"x" * 50))
    assert refused.value.concerns_one_request
    assert not link.is_down
    with pytest.raises(Unreachable):
        anyio.run(link.append_log, LEASE, 0, b"x")


def test_large_bodies_are_sent_one_at_a_time_beside_small_ones() -> None:
    under_way: list[int] = []
    most_large = 0

    async def answer(request: httpx.Request) -> httpx.Response:
        nonlocal most_large
        size = int(request.headers["content-length"])
        under_way.append(size)
        most_large = max(most_large, sum(size > LARGE_BYTES for size in under_way))
        await anyio.sleep(0.01)
        if size > LARGE_BYTES:
            assert 1 in under_way or small_done, "the small call waits for no large one"
        under_way.remove(size)
        return httpx.Response(201, headers=OURS)

    small_done: list[bool] = []

    async def main() -> None:
        link = link_to(answer)  # type: ignore[arg-type]

        async def call(size: int) -> None:
            await link.execution(LEASE, "POST", "xcoms/d/r/t/k", headers={}, body=b"x" * size)
            if size == 1:
                small_done.append(True)

        async with anyio.create_task_group() as calls:
            for size in (LARGE_BYTES + 1, LARGE_BYTES + 1, LARGE_BYTES + 1, 1):
                calls.start_soon(call, size)

    anyio.run(main)
    assert most_large == 1
    assert small_done


def test_a_large_body_is_sent_in_pieces_and_again_after_a_stale_connection() -> None:
    body = bytes(range(256)) * 4096
    seen: list[tuple[str, bytes]] = []

    async def main() -> None:
        class Stale(httpx.AsyncBaseTransport):
            async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
                pieces = [piece async for piece in request.stream]  # type: ignore[union-attr]
                assert len(pieces) > 1
                assert "transfer-encoding" not in request.headers
                seen.append((request.headers["content-length"], b"".join(pieces)))
                if len(seen) == 1:
                    raise httpx.ReadError("closed while it was used")
                return httpx.Response(201, headers=OURS)

        link = Link(Network(central="https://a.example.com"), credential="c", clock=HandClock(), transport=Stale())
        link.session_id = "s-1"
        assert (await link.execution(LEASE, "POST", "xcoms/d/r/t/k", headers={}, body=body)).status == 201

    anyio.run(main)
    assert seen == [(str(len(body)), body)] * 2


# Code

TREE = "a" * 64


def fetch_from(
    answer: Callable[[httpx.Request], httpx.Response], *, start: int = 0, end: int | None = None, etag: str = "", base: str = ""
) -> tuple[PackAnswer, bytes]:
    async def run() -> tuple[PackAnswer, bytes]:
        link = link_to(answer)
        async with link.fetch_pack(TREE, base=base, lzma=True, start=start, end=end, etag=etag) as got:
            return got, b"".join([chunk async for chunk in got.chunks])

    return anyio.run(run)


def test_a_request_for_code_has_credential_session_and_no_compression() -> None:
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, headers={**OURS, "etag": '"abc"'}, content=b"pack")

    got, body = fetch_from(answer, base="b" * 64)
    assert (got.status, got.etag, got.start, got.total, body) == (200, "abc", 0, 4, b"pack")
    (request,) = seen
    assert str(request.url) == f"https://a.example.com/air/remote/v1/trees/{TREE}/pack?base={'b' * 64}"
    assert request.headers["accept-encoding"] == "identity"
    assert request.headers["authorization"] == "Bearer cred"
    assert request.headers[SESSION_HEADER] == "s-1"
    assert "range" not in request.headers


@pytest.mark.parametrize(
    ("start", "end", "etag", "sent"),
    [
        (5, None, "x", {"range": "bytes=5-", "if-range": '"x"'}),
        (5, 9, "x", {"range": "bytes=5-8", "if-range": '"x"'}),
        (0, 9, "", {"range": "bytes=0-8"}),
    ],
)
def test_a_range_is_requested_only_of_the_same_pack(start: int, end: int | None, etag: str, sent: dict[str, str]) -> None:
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(206, headers={**OURS, "etag": 'W/"x"', "content-range": f"bytes {start}-9/10"}, content=b"rest")

    got, _ = fetch_from(answer, start=start, end=end, etag=etag)
    assert (got.status, got.etag, got.start, got.total) == (206, "x", start, 10)
    assert {name: seen[0].headers[name] for name in ("range", "if-range") if name in seen[0].headers} == sent


def test_a_range_beyond_the_end_is_an_answer() -> None:
    headers = {**OURS, PROBLEM_HEADER: "invalid", "content-range": "bytes */10", "etag": '"x"'}
    got, _ = fetch_from(lambda request: httpx.Response(416, headers=headers), start=10, etag="x")
    assert (got.status, got.total, got.etag) == (416, 10, "x")


@pytest.mark.parametrize(
    ("code", "kind"),
    [(ProblemCode.NOT_FOUND, Superseded), (ProblemCode.BUSY, Unreachable), (ProblemCode.REVOKED, Refused)],
)
def test_a_problem_instead_of_a_pack_is_raised_as_its_decision(code: ProblemCode, kind: type[Exception]) -> None:
    with pytest.raises(kind, match="because"):
        fetch_from(refusing(code))


@pytest.mark.parametrize(
    "response",
    [
        httpx.Response(200, content=b"<title>Log in</title>"),
        httpx.Response(206, headers=OURS, content=b"x"),
        httpx.Response(206, headers={**OURS, "content-range": "bytes 0-1/*"}, content=b"x"),
        httpx.Response(500, headers=OURS, content=b"x"),
        httpx.Response(302, headers={**OURS, "location": "https://b.example.com"}),
    ],
    ids=["no marker", "no range", "no length", "no reason", "a redirect"],
)
def test_what_is_not_a_pack_is_requested_again(response: httpx.Response) -> None:
    with pytest.raises(Unreachable):
        fetch_from(lambda request: response)


def test_a_part_that_a_proxy_has_compressed_is_not_used() -> None:
    headers = {**OURS, "content-range": "bytes 0-9/10", "content-encoding": "gzip"}
    with pytest.raises(Unreachable, match="a proxy changed"):
        fetch_from(lambda request: httpx.Response(206, headers=headers, content=gzip.compress(b"x")))


def test_a_cut_transfer_of_code_says_nothing_about_other_calls() -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"half"
        raise httpx.ReadError("cut")

    async def run() -> None:
        link = link_to(lambda request: httpx.Response(200, headers=OURS, content=chunks()))
        with pytest.raises(Unreachable, match="was cut") as caught:
            async with link.fetch_pack(TREE, base="", lzma=False, start=0, end=None, etag="") as got:
                [chunk async for chunk in got.chunks]
        assert caught.value.was_cut
        assert not link.is_down

    anyio.run(run)


def test_a_replaced_credential_is_no_refusal_of_code() -> None:
    async def run() -> None:
        link = link_to(refusing(ProblemCode.UNAUTHORIZED))
        link.use_credential("newer")
        with pytest.raises(Unreachable, match="the credential changed"):
            async with link.fetch_pack(TREE, base="", lzma=True, start=0, end=None, etag=""):
                raise AssertionError
        assert link.credential == "cred"

    anyio.run(run)


def test_without_a_session_no_code_is_requested() -> None:
    async def run() -> None:
        link = link_to(refusing(ProblemCode.INTERNAL))
        link.session_id = None
        with pytest.raises(Unreachable, match="no session"):
            async with link.fetch_blobs(TREE, ["b" * 64], lzma=True):
                raise AssertionError

    anyio.run(run)
