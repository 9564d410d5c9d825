"""The client of central: every endpoint of `/remote/v1` as a method. All requests of the worker to central are made here.

Owns headers, size limits, and the translation of errors into :mod:`..errors`. Their texts are in :mod:`.diagnosis`, the
connections in :mod:`.connections`. It does not own retries: callers decide what an error means, and :meth:`Link.wait_for_contact`
wakes waiting callers.
"""

from __future__ import annotations

import contextlib
import logging
import re
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import NoReturn, TypeVar
from urllib.parse import unquote

import anyio
import httpx
import msgspec
from airflow_remote_protocol.codec import Malformed, decode, decode_problem, encode
from airflow_remote_protocol.errors import Problem, ProblemCode, make_problem
from airflow_remote_protocol.execution import (
    ANSWER_HEADERS,
    CALL_HEADERS,
    DEFAULT_BODY_BYTES,
    ENVELOPE_BYTES,
    MAX_BODY_BYTES,
    explain_too_large,
)
from airflow_remote_protocol.messages import (
    MAX_SHORT_TEXT,
    BlobsWanted,
    ChunkResult,
    ChunkResults,
    Credential,
    Decline,
    Enrolled,
    Enrolment,
    Inventory,
    LogAppended,
    Poll,
    PollReply,
    Pong,
    Report,
    Runtime,
    RuntimeNoted,
    Session,
    SessionRequest,
    Statements,
    TriggerEvent,
    Usage,
    UsageNoted,
)
from airflow_remote_protocol.version import (
    EPOCH_HEADER,
    MARKER_HEADER,
    PROBLEM_HEADER,
    PROTOCOL_VERSION,
    SESSION_HEADER,
    VersionMismatch,
    check_version,
)

from airflow_remote_worker.clock import Backoff, Clock
from airflow_remote_worker.code.fetch import PackAnswer
from airflow_remote_worker.errors import Outdated, Refused, Rewind, Superseded, Unreachable, Withheld, WorkerError, from_problem
from airflow_remote_worker.lease import Lease
from airflow_remote_worker.link.connections import Connections
from airflow_remote_worker.link.diagnosis import describe, diagnose
from airflow_remote_worker.link.network import Network, Proxy

log = logging.getLogger(__name__)

T = TypeVar("T", bound=msgspec.Struct)

PREFIX = "remote/v1"
MAX_BODY = 16 * 1024 * 1024
"""Limit for central's own messages: a reply can hold many offers, each a few KiB."""
BYTES_PER_S = 1024 * 1024
"""How fast central is expected to process a large body before it answers."""
TIMEOUT_S = 30.0
CONNECT_TIMEOUT_S = 10.0
POLL_MARGIN_S = 15.0
"""How much longer than its wait a poll may stay silent before the connection counts as dead."""
LEAVE_ATTEMPTS = 5
"""All within about 5 s. No later process retries for a worker that leaves."""
LARGE_BYTES = 1024 * 1024
"""Larger bodies are sent one at a time: central has room for one large body of each worker."""
PIECE = 256 * 1024
"""Bytes that are sent within one `TIMEOUT_S`."""
END_SESSION_S = 3.0
"""How long an ending daemon waits for this call. It only lets users see at once that the worker is offline."""
STALE_S = 2.0
"""A kept-alive connection that the server has closed fails within this time. A later failure means that the request was cut."""
CLOSE_S = 1.0
"""How long closing a connection may take whose answer is not read to its end."""
PAGE = 8192
"""How many bytes of a page that isn't central's are read for its title."""
PAGE_S = 2.0


class _Login(msgspec.Struct, frozen=True):
    """Airflow's answer to a login."""

    access_token: str


@dataclass(frozen=True)
class Executed:
    """The Execution API's own response to a call."""

    status: int
    headers: dict[str, str]
    body: bytes


class Link:
    """Makes requests to central over *network* with *credential*.

    Raises:
        Refused, ConfigError: the settings of *network* can't be used.
    """

    def __init__(
        self,
        network: Network,
        *,
        credential: str,
        clock: Clock,
        previous: str | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.on_fallback: Callable[[], None] = lambda: None
        """Called when central does not know the credential and the previous one is used again."""
        self.central = network.central
        self.session_id: str | None = None
        self.body_bytes = DEFAULT_BODY_BYTES
        """Central's limit for the body of an Execution API call, in either direction."""
        self._connections = Connections(network, clock, transport)
        self._code_connections = Connections(network, clock, transport)
        """For code, whose long answers must not hold up anything else."""
        self._credential = credential
        self._previous = previous
        self._clock = clock
        self._contact = anyio.Event()
        self._sending_large = anyio.Lock()
        self._is_down = False
        self._busy_until = 0.0
        """Until when a busy central has asked for no further request (`Retry-After`)."""

    @property
    def proxy(self) -> Proxy | None:
        """The proxy that connections use, if any."""
        return self._connections.route.proxy

    # The worker

    async def enrol(self, enrolment: Enrolment) -> Enrolled:
        """Exchange the enrolment token (given as the credential) for this worker's own credential."""
        return decoded(Enrolled, await self._send("POST", "enrol", encode(enrolment), repeats=False))

    async def log_in(self, username: str, password: str) -> str:
        """Exchange a user's password for Airflow's own token (Airflow's endpoint `/auth/token`, outside `/remote/v1`).

        Raises:
            Refused: Airflow does not accept the password, or offers no such login.
            Unreachable: nothing answered, or something else did.
        """
        body = {"username": username, "password": password}
        async with self._connections.client() as client:
            try:
                async with client.stream("POST", f"{self.central}/auth/token", json=body, timeout=TIMEOUT_S) as response:
                    page = await _bounded(response, limit=PAGE)
            except (httpx.HTTPError, httpx.InvalidURL, ssl.SSLError, OSError) as error:
                raise self._unreachable(error) from None
        if response.status_code in (400, 401, 403):
            raise Refused(f"Airflow does not accept the password of {username!r}")
        if response.status_code in (404, 405, 422):
            raise Refused(
                "this Airflow issues no tokens for passwords (its auth manager uses another login); use an enrolment token"
            )
        try:
            return decode(_Login, page).access_token
        except Malformed:
            raise Unreachable(diagnose(response, page, central=self.central, proxy=self.proxy)) from None

    async def open_session(self, request: SessionRequest) -> Session:
        """Open a session, which all further calls use."""
        session = decoded(Session, await self._send("POST", "session", encode(request)))
        try:
            check_version(session.protocol)
        except VersionMismatch as error:
            raise Outdated(str(error)) from None
        self.session_id = session.session_id
        self.body_bytes = min(session.body_bytes or DEFAULT_BODY_BYTES, MAX_BODY_BYTES)
        return session

    async def next_credential(self) -> Credential:
        """Request the next credential. The present one stays valid until the new one is used."""
        return decoded(Credential, await self._send("POST", "credential"))

    @property
    def credential(self) -> str:
        """The credential in use."""
        return self._credential

    def forget_previous(self) -> None:
        """Forget the previous credential: central has seen the present one."""
        self._previous = None

    def use_credential(self, credential: str) -> None:
        """Use *credential* from now on; fall back to the present one if central does not know the new one."""
        self._previous, self._credential = self._credential, credential

    async def poll(self, poll: Poll) -> PollReply:
        """Poll for work; return when central has something to send, or after `wait_s`."""
        response = await self._send("POST", "poll", encode(poll), read_timeout_s=poll.wait_s + POLL_MARGIN_S, session=True)
        return decoded(PollReply, response)

    async def ping(self) -> Pong:
        """Check the credential; return the worker's name and central's time."""
        return decoded(Pong, await self._send("GET", "ping"))

    async def check_post(self) -> None:
        """Check that POST requests reach central.

        Raises:
            Unreachable: they don't.
        """
        # This endpoint has no POST: any answer from central itself is enough.
        with contextlib.suppress(Refused, Superseded, Outdated, Rewind):
            await self._send("POST", "ping", b"{}")

    async def append_worker_log(self, stretch: str, offset: int, chunk: bytes, *, gzipped: bool = False) -> int:
        """Append *chunk* of the worker log at *offset* of *stretch*; return how many bytes of it central holds now.

        Raises:
            Rewind: central holds another number of bytes.
        """
        headers = {"content-type": "application/octet-stream"} | ({"content-encoding": "gzip"} if gzipped else {})
        path = f"log?stretch={stretch}&offset={offset}"
        return decoded(LogAppended, await self._send("POST", path, chunk, headers=headers, session=True)).size

    async def report_usage(self, usage: Usage) -> float:
        """Report the resource usage of this machine and its jobs; return after how many seconds to report again."""
        return decoded(UsageNoted, await self._send("POST", "usage", encode(usage), session=True)).every_s

    async def end_session(self) -> None:
        """Report the regular end of this daemon, so that central shows the worker as offline at once. Raises as any call."""
        await self._send("POST", "session/end", session=True, read_timeout_s=END_SESSION_S)

    async def report_runtime(self, runtime: Runtime) -> str:
        """Report the runtime of tasks; return why central offers no jobs to this worker, empty if it does."""
        return decoded(RuntimeNoted, await self._send("POST", "runtime", encode(runtime), session=True)).trouble

    async def leave(self) -> None:
        """Give the credential back. `revoked` counts as success: an earlier attempt arrived and its answer was lost.

        Raises:
            Superseded: at central this worker still has jobs.
            Unreachable: no attempt was answered.
        """
        backoff = Backoff(self._clock, floor_s=0.5, ceiling_s=2)
        for left in reversed(range(LEAVE_ATTEMPTS)):
            try:
                await self._send("POST", "leave")
            except Unreachable:
                if not left:
                    raise
                await self._clock.sleep(backoff.next_s())
            except Refused as error:
                if error.code is not ProblemCode.REVOKED:
                    raise
                return
            else:
                return

    # Code

    @contextlib.asynccontextmanager
    async def fetch_pack(
        self, digest: str, *, base: str, lzma: bool, start: int, end: int | None, etag: str
    ) -> AsyncIterator[PackAnswer]:
        """Request the bytes from *start* to *end* (exclusive; None: the last) of the pack that makes the tree *digest*.

        Args:
            base: the tree to build on, which this worker has; empty: none.
            lzma: whether this interpreter can decode LZMA.
            etag: answer with a part only if the pack still has this ETag; empty: whichever it has.

        Raises:
            Unreachable: central did not answer; also while the chunks are read.
            Superseded, Refused, Outdated: central gives this worker no such tree.
        """
        query = "&".join([*([f"base={base}"] if base else []), *([] if lzma else ["lzma=0"])])
        headers = {}
        if start or end is not None:
            headers["range"] = f"bytes={start}-{'' if end is None else end - 1}"
            if etag:
                headers["if-range"] = f'"{etag}"'
        path = f"trees/{digest}/pack" + (f"?{query}" if query else "")
        async with self._stream("GET", path, headers=headers, accepted=(200, 206, 416)) as response:
            yield _pack_answer(response, self._chunks(response))

    @contextlib.asynccontextmanager
    async def fetch_blobs(self, digest: str, sha256s: list[str], *, lzma: bool) -> AsyncIterator[AsyncIterator[bytes]]:
        """Request single blobs of the tree *digest*; yield the chunks of the answer. Raises: as :meth:`fetch_pack`."""
        body = encode(BlobsWanted(blobs=sha256s, lzma=lzma))
        headers = {"content-type": "application/json"}
        async with self._stream("POST", f"trees/{digest}/blobs", body, headers=headers, accepted=(200,)) as response:
            yield self._chunks(response)

    async def fetch_statements(self, digest: str) -> list[str]:
        """Return what was signed about the tree *digest*, as envelopes.

        Raises:
            Unreachable, Superseded, Refused, Outdated: see :mod:`.errors`.
        """
        answer = await self._send("GET", f"trees/{digest}/statements", session=True)
        return decoded(Statements, answer).envelopes

    async def report_inventory(self, inventory: Inventory) -> None:
        """Report which trees and runtimes this worker holds."""
        await self._send("POST", "inventory", encode(inventory), session=True)

    @contextlib.asynccontextmanager
    async def _stream(
        self, method: str, path: str, body: bytes = b"", *, headers: Mapping[str, str], accepted: tuple[int, ...]
    ) -> AsyncIterator[httpx.Response]:
        """Send a request over a connection of its own kind; yield central's answer before its body is read.

        Raises:
            Unreachable, Refused, Superseded, Outdated: see :mod:`.errors`.
        """
        used = self._credential
        if self.session_id is None:
            raise Unreachable("there is no session with central yet")
        own = {
            MARKER_HEADER: PROTOCOL_VERSION,
            SESSION_HEADER: self.session_id,
            "authorization": f"Bearer {used}",
            "accept-encoding": "identity",  # Airflow compresses every other answer, and offsets would be lost
        }
        timeout = httpx.Timeout(TIMEOUT_S, connect=CONNECT_TIMEOUT_S)
        url = f"{self.central}/{PREFIX}/{path}"
        async with self._code_connections.client() as client:
            request = client.build_request(method, url, content=body or None, headers={**headers, **own}, timeout=timeout)
            try:
                response = await client.send(request, stream=True, follow_redirects=False)
            except (httpx.HTTPError, httpx.InvalidURL, ssl.SSLError, OSError) as error:
                raise self._cut(error) from None
            try:
                # A range that central can't satisfy is a problem with the status 416.
                is_answer = PROBLEM_HEADER not in response.headers or response.status_code == 416
                if MARKER_HEADER in response.headers and response.status_code in accepted and is_answer:
                    self._note_up()
                    yield response
                else:
                    await self._raise_problem(response, request, used)
            finally:
                with anyio.CancelScope(shield=True), anyio.move_on_after(CLOSE_S):
                    await response.aclose()

    async def _raise_problem(self, response: httpx.Response, request: httpx.Request, used: str) -> NoReturn:
        """Raise the error for an answer that is not what was requested."""
        if MARKER_HEADER not in response.headers:
            self._code_connections.recheck_files()
            page = await _first_bytes(response)
            raise Unreachable(diagnose(response, page, central=self.central, proxy=self.proxy), was_cut=True)
        try:
            found = decode_problem(await _bounded(response, limit=MAX_BODY))
        except (httpx.HTTPError, ssl.SSLError, OSError) as error:
            raise self._cut(error) from None
        code = response.headers.get(PROBLEM_HEADER)
        if code is None:
            raise Unreachable(
                f"central answered {response.status_code} to {request.url.path} without a reason; see the logs of its API servers"
            )
        status = response.status_code
        problem = from_problem(
            found or Problem(code=code, title=f"central answered {status}", status=status), retry_after_s=_retry_after(response)
        )
        is_unknown = isinstance(problem, Refused | Withheld) and problem.code in (ProblemCode.UNAUTHORIZED, ProblemCode.EXPIRED)
        if is_unknown and self._switch_credential(used):
            raise Unreachable(f"the credential changed during the request ({problem}); retrying with the present one")
        raise problem

    async def _chunks(self, response: httpx.Response) -> AsyncIterator[bytes]:
        try:
            async for chunk in response.aiter_bytes():
                yield chunk
        except (httpx.HTTPError, ssl.SSLError, OSError) as error:
            raise self._cut(error) from None

    def _cut(self, error: Exception) -> Unreachable:
        # This says nothing about other requests: central does not count as down, and jobs don't spool their writes.
        self._code_connections.recheck_files()
        return Unreachable(describe(error, self.central, self.proxy), was_cut=not _never_left(error))

    # A job

    async def accept(self, lease: Lease) -> None:
        await self._send("POST", f"jobs/{lease.job_id}/accept", session=True, lease=lease)

    async def decline(self, lease: Lease, reason: str) -> None:
        body = encode(Decline(reason=reason[:MAX_SHORT_TEXT]))
        await self._send("POST", f"jobs/{lease.job_id}/decline", body, session=True, lease=lease)

    async def report(self, lease: Lease, report: Report) -> None:
        await self._send("POST", f"jobs/{lease.job_id}/report", encode(report), session=True, lease=lease)

    async def append_log(self, lease: Lease, offset: int, chunk: bytes, *, gzipped: bool = False) -> int:
        """Append *chunk* at *offset* (of the uncompressed log); return how many bytes central holds now.

        Raises:
            Rewind: central holds another number of bytes.
        """
        headers = {"content-type": "application/octet-stream"}
        if gzipped:
            headers["content-encoding"] = "gzip"
        path = f"jobs/{lease.job_id}/log?offset={offset}"
        response = await self._send("POST", path, chunk, headers=headers, session=True, lease=lease)
        return decoded(LogAppended, response).size

    async def event(self, lease: Lease, event: TriggerEvent) -> None:
        """Report how a trigger has ended, so that its task resumes.

        Raises:
            Superseded: the task no longer waits for the trigger.
        """
        await self._send("POST", f"jobs/{lease.job_id}/event", encode(event), session=True, lease=lease)

    async def append_logs(self, body: bytes, *, gzipped: bool = False) -> list[ChunkResult]:
        """Append pieces of the logs of many triggers; return one result each, in their order. *body*: a `LogChunks` message."""
        headers = {"content-type": "application/json"} | ({"content-encoding": "gzip"} if gzipped else {})
        return decoded(ChunkResults, await self._send("POST", "logs", body, headers=headers, session=True)).results

    async def execution(self, lease: Lease, method: str, path: str, *, headers: Mapping[str, str], body: bytes) -> Executed:
        """Pass one Execution API call of the job on; errors of the Execution API itself are returned, not raised.

        Raises:
            Refused: `too-large`: the body or the answer exceeds central's or a proxy's limit; `invalid`: a bad path.
        """
        if _leaves_execution_api(path):
            # Proxies would resolve dot segments: a job could call any endpoint with the worker's credential.
            detail = f"{path[:200]!r} is not a path of the Execution API"
            raise from_problem(make_problem(ProblemCode.INVALID, detail))
        if len(body) > self.body_bytes:
            raise _too_large(explain_too_large(f"the body of {method} {path[:200]}", size=len(body), most=self.body_bytes))
        kept = {name: value for name, value in headers.items() if name.lower() in CALL_HEADERS}
        path = f"jobs/{lease.job_id}/execution/{path.lstrip('/')}"
        patience_s = TIMEOUT_S + len(body) / BYTES_PER_S
        async with self._sending_large if len(body) > LARGE_BYTES else contextlib.nullcontext():
            return await self._send(
                method, path, body, headers=kept, session=True, lease=lease, execution=True, read_timeout_s=patience_s
            )

    # Contact

    @property
    def is_down(self) -> bool:
        """Whether the last request did not reach central."""
        return self._is_down

    async def wait_for_contact(self, at_most_s: float) -> None:
        """Wait *at_most_s*, or until a request has reached central again (and a random moment more, to spread the callers).

        A busy central's `Retry-After` is still respected: one successful call doesn't mean that there is room for all.
        """
        latest = self._clock.monotonic() + at_most_s
        with anyio.move_on_after(at_most_s) as waited:
            await self._contact.wait()
        if not waited.cancelled_caught:
            asked_s = max(0.0, min(self._busy_until, latest) - self._clock.monotonic())
            await self._clock.sleep(asked_s + 0.2 * self._clock.chance())

    def _note_up(self) -> None:
        # Only the end of an outage wakes waiters. Waking them after each successful call would overload a busy central.
        if self._is_down:
            self._is_down = False
            self._contact.set()
            self._contact = anyio.Event()

    async def close(self) -> None:
        await self._connections.close()
        await self._code_connections.close()

    # One request

    async def _send(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        *,
        headers: Mapping[str, str] | None = None,
        session: bool = False,
        lease: Lease | None = None,
        read_timeout_s: float = TIMEOUT_S,
        execution: bool = False,
        repeats: bool = True,
    ) -> Executed:
        """Send a request; return the answer. *repeats*: whether the call may be made twice.

        Raises:
            Unreachable, Refused, Superseded, Outdated, Rewind: see :mod:`.errors`.
        """
        used = self._credential
        own = {MARKER_HEADER: PROTOCOL_VERSION, "accept-encoding": "gzip"}
        if used:  # `check URL` has no credential, and a header with an empty one is invalid
            own["authorization"] = f"Bearer {used}"
        if session:
            if self.session_id is None:
                raise Unreachable("there is no session with central yet")
            own[SESSION_HEADER] = self.session_id
        if lease:
            own[EPOCH_HEADER] = str(lease.epoch)
        if body and headers is None:
            own["content-type"] = "application/json"
        timeout = httpx.Timeout(TIMEOUT_S, connect=CONNECT_TIMEOUT_S, read=read_timeout_s)
        url = f"{self.central}/{PREFIX}/{path}"
        started = self._clock.monotonic()
        try:
            async with self._connections.client() as client:
                content: bytes | _Pieces | None = body or None
                if len(body) > PIECE:
                    content, own["content-length"] = _Pieces(body), str(len(body))
                request = client.build_request(method, url, content=content, headers={**(headers or {}), **own}, timeout=timeout)
                try:
                    answer = await self._exchange(client, request, execution=execution)
                except (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError) as error:
                    # The server closed a kept-alive connection just when it was used: retry at once, only once.
                    if not repeats or self._clock.monotonic() - started > STALE_S:
                        raise self._unreachable(error) from None
                    try:
                        answer = await self._exchange(client, request, execution=execution)
                    except (httpx.HTTPError, ssl.SSLError, OSError) as again:
                        raise self._unreachable(again) from None
                except (httpx.HTTPError, httpx.InvalidURL, ssl.SSLError, OSError) as error:
                    raise self._unreachable(error) from None
        except (Refused, Withheld) as error:
            if error.code not in (ProblemCode.UNAUTHORIZED, ProblemCode.EXPIRED) or not self._switch_credential(used):
                raise
            raise Unreachable(f"the credential changed during the request ({error}); retrying with the present one") from None
        self._note_up()
        return answer

    def _switch_credential(self, used: str) -> bool:
        """Return whether to retry with another credential than *used*; go back to the previous one if there is no newer one."""
        if used != self._credential:
            return True
        if self._previous is None:
            return False
        log.warning("central does not know this worker's newest credential (was its database restored?); using the one before")
        self._credential, self._previous = self._previous, None
        self.on_fallback()
        return True

    async def _exchange(self, client: httpx.AsyncClient, request: httpx.Request, *, execution: bool) -> Executed:
        response = await client.send(request, stream=True, follow_redirects=False)
        try:
            if MARKER_HEADER not in response.headers:
                if execution and response.status_code == httpx.codes.REQUEST_ENTITY_TOO_LARGE:
                    # A retry would be refused again. Central is reachable: a smaller call succeeds.
                    size = request.headers.get("content-length", "?")
                    raise _too_large(
                        f"a proxy between this worker and central refuses a body of {size} bytes (status 413, without central's "
                        "header): raise its limit (nginx: client_max_body_size) to central's, or keep large values in a store"
                    )
                self._is_down = True
                self._connections.recheck_files()
                page = await _first_bytes(response)
                raise Unreachable(diagnose(response, page, central=self.central, proxy=self.proxy), was_cut=True)
            body = await (self._bounded_answer(response, request) if execution else _bounded(response, limit=MAX_BODY))
        finally:
            await response.aclose()
        if PROBLEM_HEADER in response.headers:
            found = decode_problem(body) or Problem(
                code=response.headers[PROBLEM_HEADER],
                title=f"central answered {response.status_code}",
                status=response.status_code,
            )
            retry_after_s = _retry_after(response)
            if retry_after_s is not None:
                self._busy_until = max(self._busy_until, self._clock.monotonic() + retry_after_s)
            raise from_problem(found, retry_after_s=retry_after_s)
        kept = {name: response.headers[name] for name in ANSWER_HEADERS if name in response.headers}
        if not response.is_success and not execution:
            raise Unreachable(
                f"central answered {response.status_code} to {request.url.path} without a reason; see the logs of its API servers"
            )
        return Executed(response.status_code, kept, body)

    async def _bounded_answer(self, response: httpx.Response, request: httpx.Request) -> bytes:
        """Return the body of the Execution API's answer. Raises: Refused."""
        most = self.body_bytes + ENVELOPE_BYTES
        announced = response.headers.get("content-length", "")
        try:
            return await _bounded(response, limit=most, announced=int(announced) if announced.isdigit() else 0)
        except _TooLong as error:
            self._note_up()
            what = f"central's answer to {request.method} {request.url.path[-200:]}"
            raise _too_large(explain_too_large(what, size=error.size, most=self.body_bytes)) from None

    def _unreachable(self, error: Exception) -> Unreachable:
        self._is_down = True
        self._connections.recheck_files()
        return Unreachable(describe(error, self.central, self.proxy), was_cut=not _never_left(error))


def decoded(kind: type[T], answer: Executed) -> T:
    """Return the message in *answer*.

    Raises:
        Unreachable: the answer is not such a message.
    """
    try:
        return decode(kind, answer.body)
    except Malformed as error:
        raise Unreachable(
            f"central's answer can't be read: {error}; central may be newer than this worker: update the worker"
        ) from None


def _never_left(error: Exception) -> bool:
    """Return whether the request was not sent."""
    return isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout | httpx.ProxyError)


def _pack_answer(response: httpx.Response, chunks: AsyncIterator[bytes]) -> PackAnswer:
    """Return the answer to a request for a pack.

    Raises:
        Unreachable: it has no readable range, or a proxy has compressed a part.
    """
    etag = response.headers.get("etag", "").removeprefix("W/").strip('"')
    is_encoded = response.headers.get("content-encoding", "identity") != "identity"
    if response.status_code != 206:
        length = response.headers.get("content-length", "")
        total = int(length) if response.status_code == 200 and length.isdigit() and not is_encoded else 0
        if found := re.fullmatch(r"bytes \*/(\d{1,15})", response.headers.get("content-range", "")):
            total = int(found[1])
        return PackAnswer(response.status_code, etag, 0, total, chunks)
    found = re.fullmatch(r"bytes (\d{1,15})-(\d{1,15})/(\d{1,15})", response.headers.get("content-range", ""))
    if found is None or is_encoded:
        raise Unreachable("a proxy changed central's answer to a request for a part of some code; retrying", was_cut=True)
    return PackAnswer(206, etag, int(found[1]), int(found[3]), chunks)


def _leaves_execution_api(path: str) -> bool:
    return any(part in (".", "..") for part in unquote(path.partition("?")[0]).replace("\\", "/").split("/")) or "#" in path


class _Pieces:
    """A body that is sent in pieces and can be sent again. The time limit applies to each piece, so slow lines are allowed."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for begin in range(0, len(self._body), PIECE):
            yield self._body[begin : begin + PIECE]


async def _first_bytes(response: httpx.Response) -> bytes:
    """Return the beginning of a page that isn't central's, as much as arrives within :data:`PAGE_S`."""
    page = b""
    with anyio.move_on_after(PAGE_S), contextlib.suppress(httpx.HTTPError, ssl.SSLError, OSError):
        async for chunk in response.aiter_bytes(PAGE):
            page += chunk
            if len(page) >= PAGE:
                break
    return page[:PAGE]


class _TooLong(Unreachable):
    """An answer exceeds its size limit. *size*: its known size in bytes."""

    def __init__(self, size: int, *, limit: int) -> None:
        super().__init__(f"central's answer is longer than the limit of {limit} bytes")
        self.size = size


async def _bounded(response: httpx.Response, *, limit: int, announced: int = 0) -> bytes:
    """Raises: _TooLong."""
    if announced > limit:
        raise _TooLong(announced, limit=limit)
    chunks: list[bytes] = []
    size = 0
    async for chunk in response.aiter_bytes():
        size += len(chunk)
        if size > limit:
            raise _TooLong(size, limit=limit)
        chunks.append(chunk)
    return b"".join(chunks)


def _too_large(detail: str) -> WorkerError:
    return from_problem(make_problem(ProblemCode.TOO_LARGE, detail))


def _retry_after(response: httpx.Response) -> float | None:
    try:
        return min(600.0, max(0.0, float(response.headers["retry-after"])))
    except (KeyError, ValueError):
        return None
