"""The one connection to central: every route of `/remote/v1` as a method. All network speech of the worker goes through here.

Owns the pool, TLS, proxies, headers, bounds, and the translation of foreign errors into ours. It refuses to own retries: callers
decide what an error means to them; :meth:`Link.heard_again` wakes those who wait.
"""

from __future__ import annotations

import contextlib
import importlib.util
import ssl
import sys
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import unquote

import anyio
import httpx
import msgspec
from airflow_remote_protocol.codec import Malformed, decode, decode_problem, encode
from airflow_remote_protocol.errors import Problem, ProblemCode, problem
from airflow_remote_protocol.messages import (
    Decline,
    Enrolled,
    Enrolment,
    LogAppended,
    Poll,
    PollReply,
    Pong,
    Report,
    Session,
    SessionRequest,
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

from airflow_remote_worker import __version__
from airflow_remote_worker.clock import Backoff, Clock
from airflow_remote_worker.errors import Outdated, Refused, Unreachable, from_problem
from airflow_remote_worker.lease import Lease

T = TypeVar("T", bound=msgspec.Struct)

PREFIX = "remote/v1"
MAX_BODY = 16 * 1024 * 1024
"""Of central's own messages: a reply full of offers, each a few KiB."""
MAX_EXECUTION_BODY = 60 * 1024 * 1024
"""Of the Execution API's: what fits into one frame to the shim."""
CONNECTION_AGE_S = 15 * 60
"""Then a new pool: load balancers rebalance, and DNS is asked again."""
TIMEOUT_S = 30.0
CONNECT_TIMEOUT_S = 10.0
POLL_MARGIN_S = 15.0
"""How much longer than its wait a poll may stay silent before the connection counts as dead."""
LEAVE_ATTEMPTS = 5
"""Within some 5 s: whoever leaves has nobody left who would try again."""
CALL_HEADERS = ("airflow-api-version", "content-type", "correlation-id")
"""What goes in with an Execution API call (docs/protocol.md)."""


@dataclass(frozen=True)
class Executed:
    """The Execution API's own response to a call."""

    status: int
    headers: dict[str, str]
    body: bytes


class _Pool:
    """One client of a limited age; closed when it is old and its last request has ended."""

    def __init__(self, client: httpx.AsyncClient, born: float) -> None:
        self.client = client
        self.born = born
        self.requests = 0


class Link:
    """Speaks to the central at *central* as the holder of *credential*."""

    def __init__(
        self,
        central: str,
        *,
        credential: str,
        clock: Clock,
        ca_file: str | None = None,
        proxy: str | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.central = central
        self.session_id: str | None = None
        self._credential = credential
        self._clock = clock
        self._proxy = proxy
        self._transport = transport
        self._tls = tls_context(ca_file) if transport is None else None
        self._pool: _Pool | None = None
        self._contact = anyio.Event()
        self._is_down = False
        self._busy_until = 0.0
        """The latest moment before which a busy central has asked us not to come again."""

    # The worker

    async def enrol(self, enrolment: Enrolment) -> Enrolled:
        """Exchange the enrolment token (given as the credential) for this worker's own credential."""
        return decoded(Enrolled, await self._send("POST", "enrol", encode(enrolment)))

    async def open_session(self, request: SessionRequest) -> Session:
        """Open a session; all further calls speak under it."""
        session = decoded(Session, await self._send("POST", "session", encode(request)))
        try:
            check_version(session.protocol)
        except VersionMismatch as error:
            raise Outdated(str(error)) from None
        self.session_id = session.session_id
        return session

    async def poll(self, poll: Poll) -> PollReply:
        """Ask for work; returns when central has something to say, or after `wait_s`."""
        response = await self._send("POST", "poll", encode(poll), read_timeout_s=poll.wait_s + POLL_MARGIN_S, session=True)
        return decoded(PollReply, response)

    async def ping(self) -> Pong:
        """Prove the credential; hear central's clock."""
        return decoded(Pong, await self._send("GET", "ping"))

    async def leave(self) -> None:
        """Give our credential back. That it has been revoked is as good: central may have heard us, and we not its answer.

        Raises:
            Superseded: central still counts jobs here.
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

    # A job

    async def accept(self, lease: Lease) -> None:
        await self._send("POST", f"jobs/{lease.job_id}/accept", session=True, lease=lease)

    async def decline(self, lease: Lease, reason: str) -> None:
        body = encode(Decline(reason=reason[:2000]))
        await self._send("POST", f"jobs/{lease.job_id}/decline", body, session=True, lease=lease)

    async def report(self, lease: Lease, report: Report) -> None:
        await self._send("POST", f"jobs/{lease.job_id}/report", encode(report), session=True, lease=lease)

    async def append_log(self, lease: Lease, offset: int, chunk: bytes, *, gzipped: bool = False) -> int:
        """Append *chunk* at *offset* (of the unpacked log); return how many bytes central holds now.

        Raises:
            Rewind: central stands elsewhere.
        """
        headers = {"content-type": "application/octet-stream"}
        if gzipped:
            headers["content-encoding"] = "gzip"
        path = f"jobs/{lease.job_id}/log?offset={offset}"
        response = await self._send("POST", path, chunk, headers=headers, session=True, lease=lease)
        return decoded(LogAppended, response).size

    async def execution(self, lease: Lease, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Executed:
        """Pass one Execution API call of the job on; errors of the Execution API itself are returned, not raised."""
        if _climbs(path):
            # Dot segments would be resolved on the way: a job could speak as its worker, to any route.
            detail = f"{path[:200]!r} is not a path of the Execution API"
            raise from_problem(problem(ProblemCode.INVALID, detail))
        kept = {name: value for name, value in headers.items() if name.lower() in CALL_HEADERS}
        path = f"jobs/{lease.job_id}/execution/{path.lstrip('/')}"
        return await self._send(method, path, body, headers=kept, session=True, lease=lease, execution=True)

    # Contact

    @property
    def is_down(self) -> bool:
        """Whether the last request found no central; one that waits now would only wait."""
        return self._is_down

    async def heard_again(self, at_most_s: float) -> None:
        """Wait *at_most_s*, or until anyone hears of central (and a moment more, so that not all call at once).

        What a busy central asked for holds all the same: one call that got through doesn't mean that there is room for all.
        """
        latest = self._clock.monotonic() + at_most_s
        with anyio.move_on_after(at_most_s) as waited:
            await self._contact.wait()
        if not waited.cancelled_caught:
            asked_s = max(0.0, min(self._busy_until, latest) - self._clock.monotonic())
            await self._clock.sleep(asked_s + 0.2 * self._clock.chance())

    def _note_up(self) -> None:
        # Only the end of an outage wakes waiters: each success of another call would press a central that is merely busy.
        if self._is_down:
            self._is_down = False
            self._contact.set()
            self._contact = anyio.Event()

    async def close(self) -> None:
        pool, self._pool = self._pool, None
        if pool:
            await pool.client.aclose()

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
    ) -> Executed:
        """Send; return the answer.

        Raises:
            Unreachable, Refused, Superseded, Outdated, Rewind: see :mod:`.errors`.
        """
        own = {MARKER_HEADER: PROTOCOL_VERSION, "authorization": f"Bearer {self._credential}", "accept-encoding": "gzip"}
        if session:
            if self.session_id is None:
                raise Unreachable("no session with central has been opened yet")
            own[SESSION_HEADER] = self.session_id
        if lease:
            own[EPOCH_HEADER] = str(lease.epoch)
        if body and headers is None:
            own["content-type"] = "application/json"
        timeout = httpx.Timeout(TIMEOUT_S, connect=CONNECT_TIMEOUT_S, read=read_timeout_s)
        url = f"{self.central}/{PREFIX}/{path}"
        async with self._client() as client:
            request = client.build_request(method, url, content=body or None, headers={**(headers or {}), **own}, timeout=timeout)
            try:
                answer = await self._exchange(client, request, execution=execution)
            except httpx.RemoteProtocolError:
                # The server closed a kept-alive connection just as we used it. All our calls may be repeated: at once, just once.
                try:
                    answer = await self._exchange(client, request, execution=execution)
                except httpx.HTTPError as error:
                    self._is_down = True
                    raise Unreachable(describe(error, self.central)) from None
            except (httpx.HTTPError, httpx.InvalidURL, ssl.SSLError, OSError) as error:
                self._is_down = True
                raise Unreachable(describe(error, self.central)) from None
        self._note_up()
        return answer

    async def _exchange(self, client: httpx.AsyncClient, request: httpx.Request, *, execution: bool) -> Executed:
        response = await client.send(request, stream=True, follow_redirects=False)
        try:
            if MARKER_HEADER not in response.headers:
                self._is_down = True
                raise Unreachable(diagnose(response, self.central))
            body = await _bounded(response, MAX_EXECUTION_BODY if execution else MAX_BODY)
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
        kept = {"content-type": kind} if (kind := response.headers.get("content-type")) else {}
        if not response.is_success and not execution:
            raise Unreachable(f"central answered {response.status_code} to {request.url.path} without saying why")
        return Executed(response.status_code, kept, body)

    @contextlib.asynccontextmanager
    async def _client(self) -> AsyncIterator[httpx.AsyncClient]:
        now = self._clock.monotonic()
        pool = self._pool
        if pool is None or now - pool.born > CONNECTION_AGE_S:
            old, pool = pool, _Pool(self._make_client(), now)
            self._pool = pool
            if old and old.requests == 0:
                await old.client.aclose()
        pool.requests += 1
        try:
            yield pool.client
        finally:
            pool.requests -= 1
            if pool is not self._pool and pool.requests == 0:
                with anyio.CancelScope(shield=True):
                    await pool.client.aclose()

    def _make_client(self) -> httpx.AsyncClient:
        if importlib.util.find_spec("sniffio") is None:
            # httpcore tries to import it several times for each request; each failure would walk the whole path anew.
            sys.modules.setdefault("sniffio", None)  # type: ignore[arg-type]  # the language's own mark for "there is none"
        return httpx.AsyncClient(
            verify=self._tls if self._tls is not None else True,
            proxy=self._proxy,
            trust_env=True,
            transport=self._transport,
            limits=httpx.Limits(max_connections=64, max_keepalive_connections=16, keepalive_expiry=60),
            headers={"user-agent": f"airflow-remote-worker/{__version__}"},
        )


def tls_context(ca_file: str | None) -> ssl.SSLContext:
    """Return what verifies central: the authorities in *ca_file*, else those that the operating system trusts."""
    if ca_file:
        try:
            return ssl.create_default_context(cafile=ca_file)
        except OSError as error:
            cause = error.strerror or error
            raise Refused(
                f"ca_file: {ca_file} can't be used ({cause}); give a PEM file with the authority's certificate"
            ) from None
    import truststore

    return truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def decoded(kind: type[T], answer: Executed) -> T:
    """Return the message in an answer; nonsense is not central's word."""
    try:
        return decode(kind, answer.body)
    except Malformed as error:
        raise Unreachable(f"central's answer makes no sense: {error}; central may be newer than this worker") from None


def diagnose(response: httpx.Response, central: str) -> str:
    """Say what probably answered instead of central."""
    kind = response.headers.get("content-type", "").partition(";")[0] or "no content type"
    what = f"{central} answered {response.status_code} {kind} by something that is not central's remote API"
    if response.is_redirect:
        target = response.headers.get("location", "?")[:200]
        return f"{what}: a redirect to {target}; a proxy's login page, or the address has moved"
    if response.status_code == 407:
        return f"{what}: a proxy that wants a login; put user and password into the proxy's URL"
    if response.status_code in (502, 503, 504):
        return f"{what}: a load balancer that can't reach central"
    if kind == "text/html":
        return f"{what}: a proxy's login page, or a web server that knows no {PREFIX}; check the address and its sub-path"
    return f"{what}; check the address and its sub-path, and that the provider is installed in central's API server"


def describe(error: Exception, central: str) -> str:
    """Say what went wrong on the way to central."""
    if isinstance(error, httpx.ProxyError):
        return f"the proxy refused the way to {central}: {error}"
    if isinstance(error, httpx.ConnectTimeout):
        return f"{central} did not take the connection within {CONNECT_TIMEOUT_S:g} s"
    if isinstance(error, httpx.TimeoutException):
        return f"{central} did not answer in time ({type(error).__name__})"
    return f"{central} can't be reached: {error or type(error).__name__}"


def _climbs(path: str) -> bool:
    return any(part in (".", "..") for part in unquote(path.partition("?")[0]).replace("\\", "/").split("/")) or "#" in path


async def _bounded(response: httpx.Response, limit: int) -> bytes:
    chunks: list[bytes] = []
    size = 0
    async for chunk in response.aiter_bytes():
        size += len(chunk)
        if size > limit:
            raise Unreachable(f"central's answer is longer than {limit} bytes; that is not expected of it")
        chunks.append(chunk)
    return b"".join(chunks)


def _retry_after(response: httpx.Response) -> float | None:
    try:
        return min(600.0, max(0.0, float(response.headers["retry-after"])))
    except (KeyError, ValueError):
        return None
