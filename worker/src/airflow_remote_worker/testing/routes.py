"""The routes of docs/protocol.md, from the bytes of a request to those of an answer, on the fake central's ledger.

Owns parsing, access to routes, and the long poll. Sockets are :mod:`.http_server`'s, decisions about jobs :mod:`.ledger`'s.
"""

from __future__ import annotations

import re
import time
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar
from urllib.parse import parse_qs, unquote, urlsplit

import msgspec
from airflow_remote_protocol.codec import Malformed, decode, encode
from airflow_remote_protocol.errors import ProblemCode
from airflow_remote_protocol.execution import ANSWER_HEADERS, CALL_HEADERS, ENVELOPE_BYTES, explain_too_large
from airflow_remote_protocol.messages import (
    ChunkResults,
    Credential,
    Decline,
    Enrolled,
    Enrolment,
    Inventory,
    JobKind,
    LogAppended,
    LogChunks,
    Poll,
    PollReply,
    Pong,
    Report,
    Runtime,
    RuntimeNoted,
    Session,
    SessionRequest,
    TriggerEvent,
    Usage,
    UsageNoted,
)
from airflow_remote_protocol.tokens import MalformedToken, TokenKind, check_token
from airflow_remote_protocol.version import (
    EPOCH_HEADER,
    MARKER_HEADER,
    PROBLEM_HEADER,
    PROTOCOL_VERSION,
    SESSION_HEADER,
    Capability,
    VersionMismatch,
    check_version,
)

from airflow_remote_worker.testing.code import CodeAnswer, CodeRequest, CodeStore
from airflow_remote_worker.testing.ledger import Job, Ledger, Refusal, Worker

M = TypeVar("M", bound=msgspec.Struct)

MAX_LOG_PACKED = 1 << 20
MAX_LOG_UNPACKED = 8 << 20
MAX_WORKER_LOG = 1 << 20
"""docs/protocol.md, the `log` route."""

LOOK_S = 0.1
"""How often a waiting poll checks for a closed connection or an expired offer; other changes wake it at once."""

Execution = Callable[[Job, str, str, Mapping[str, str], bytes], tuple[int, Mapping[str, str], bytes]]
"""The Execution API: (job, method, path with query, headers, body) → (status, headers, body)."""


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    """Below `/remote/v1/`, without its query."""
    query: str
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes
    peer_hung_up: Callable[[], bool] = lambda: False


@dataclass(frozen=True)
class Answer:
    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    on_undelivered: Callable[[], None] = lambda: None
    """Called if the peer closes the connection before the answer is sent."""
    cut_after: int | None = None
    """The connection ends after so many bytes of the body."""
    bytes_s: float | None = None
    """How fast the body is sent."""


class Routes:
    """Answers requests. Called from one thread per connection."""

    def __init__(
        self, ledger: Ledger, code: CodeStore, execution: Execution, *, poll_s: float, retry_s: float, body_bytes: int
    ) -> None:
        self.execution = execution
        self._ledger = ledger
        self._code = code
        self._poll_s = poll_s
        self._body_bytes = body_bytes
        self._retry_s = retry_s

    def answer(self, request: Request) -> Answer:
        """Answer any request; a refusal is answered with a problem."""
        try:
            answer = self._dispatch(request)
        except Malformed as error:
            answer = _as_answer(Refusal(ProblemCode.INVALID, str(error)))
        except Refusal as refusal:
            answer = _as_answer(refusal)
        marked = {MARKER_HEADER: PROTOCOL_VERSION, **answer.headers}
        return replace(answer, headers=marked)

    def _dispatch(self, request: Request) -> Answer:
        ledger = self._ledger
        if (request.method, request.path) == ("POST", "enrol"):
            return self._enrol(request)
        with ledger.changed:
            worker = ledger.authenticate(_bearer(request))
        _check_marker(request)
        match (request.method, request.path.split("/", 3)):
            case ("POST", ["session"]):
                return self._session(request, worker)
            case ("GET", ["ping"]):
                return _message(Pong(name=worker.name, time=time.time()))
            case ("POST", ["credential"]):
                with ledger.changed:
                    made = ledger.issue_credential(worker, _bearer(request))
                return _message(Credential(credential=made, life_s=ledger.credential_s))
            case ("POST", ["log"]):
                with ledger.changed:
                    ledger.check_session(worker, request.headers.get(SESSION_HEADER))
                    text = _unpacked(request, MAX_WORKER_LOG)
                    stretch, offset = _stretch(request)
                    size = ledger.append_worker_log(worker, stretch=stretch, offset=offset, text=text)
                    return _message(LogAppended(size=size))
            case ("POST", ["logs"]):
                chunks = decode(LogChunks, _unpacked(request, MAX_LOG_UNPACKED)).chunks
                with ledger.changed:
                    ledger.check_session(worker, request.headers.get(SESSION_HEADER))
                    return _message(ChunkResults(results=[ledger.append_chunk(worker, chunk) for chunk in chunks]))
            case ("POST", ["usage"]):
                with ledger.changed:
                    ledger.check_session(worker, request.headers.get(SESSION_HEADER))
                    worker.usage = decode(Usage, request.body)
                return _message(UsageNoted(every_s=self._poll_s))
            case ("POST", ["session", "end"]):
                with ledger.changed:
                    ledger.check_session(worker, request.headers.get(SESSION_HEADER))
                    worker.session_id = worker.boot_id = None
                    ledger.changed.notify_all()
                return Answer(204)
            case ("POST", ["runtime"]):
                with ledger.changed:
                    ledger.check_session(worker, request.headers.get(SESSION_HEADER))
                    worker.runtime = decode(Runtime, request.body)
                return _message(RuntimeNoted(trouble=worker.runtime.trouble))
            case ("POST", ["inventory"]):
                with ledger.changed:
                    ledger.check_session(worker, request.headers.get(SESSION_HEADER))
                    found = decode(Inventory, request.body)
                    worker.inventory, worker.runtimes = found.trees, found.runtimes
                    worker.release, worker.running = found.release, found.running
                    ledger.changed.notify_all()
                return Answer(204)
            case ("GET", ["trees", digest, "pack"]):
                return self._tree(request, worker, unquote(digest), self._code.answer_pack)
            case ("POST", ["trees", digest, "blobs"]):
                return self._tree(request, worker, unquote(digest), self._code.answer_blobs)
            case ("GET", ["trees", digest, "statements"]):
                return self._tree(request, worker, unquote(digest), self._code.answer_statements)
            case ("POST", ["leave"]):
                with ledger.changed:
                    ledger.leave(worker)
                return Answer(204)
            case ("POST", ["poll"]):
                return self._poll(request, worker)
            case (_, ["jobs", job_id, "execution", path]):
                return self._execution(request, worker, job_id=unquote(job_id), path=path)
            case ("POST", ["jobs", job_id, verb]) if verb in ("accept", "decline", "report", "log", "event"):
                return self._job(request, worker, job_id=unquote(job_id), verb=verb)
        raise Refusal(ProblemCode.NOT_FOUND, f"there is no route {request.method} {request.path}")

    def _enrol(self, request: Request) -> Answer:
        try:
            token = check_token(TokenKind.ENROLMENT, _bearer(request))
        except MalformedToken as error:
            raise Refusal(ProblemCode.UNAUTHORIZED, str(error)) from None
        _check_marker(request)
        enrolment = decode(Enrolment, request.body)
        with self._ledger.changed:
            worker, credential = self._ledger.enrol(token, enrolment)
        enrolled = Enrolled(worker_id=worker.worker_id, name=worker.name, credential=credential, queues=worker.queues)
        return _message(enrolled, status=201)

    def _session(self, request: Request, worker: Worker) -> Answer:
        asked = decode(SessionRequest, request.body)
        with self._ledger.changed:
            stops = self._ledger.open_session(worker, asked)
            session = Session(
                session_id=worker.session_id or "",
                worker_id=worker.worker_id,
                name=worker.name,
                protocol=PROTOCOL_VERSION,
                capabilities=[capability.value for capability in Capability],
                poll_s=self._poll_s,
                retry_s=self._retry_s,
                intent=worker.intent,
                stops=stops,
                time=time.time(),
                body_bytes=self._body_bytes,
                credential_life_s=self._ledger.credential_s,
                credential_age_s=self._ledger.credential_age_s(worker),
                task_settings=self._ledger.task_settings,
                runtimes=self._ledger.runtimes_of(worker),
                release=self._ledger.release_of(worker),
                jobs_left=self._ledger.jobs_left(worker),
            )
        return _message(session)

    def _poll(self, request: Request, worker: Worker) -> Answer:
        asked = decode(Poll, request.body)
        session_id = request.headers.get(SESSION_HEADER)
        ledger = self._ledger
        with ledger.changed:
            ledger.check_session(worker, session_id)
            worker.newest_poll += 1
            number = worker.newest_poll
            ledger.changed.notify_all()
            ledger.renew(worker, asked.jobs)
            deadline = time.monotonic() + max(0.0, min(asked.wait_s, self._poll_s))
            while True:
                ledger.check_right(worker)
                session = ledger.check_session(worker, session_id)
                ledger.expire_offers()
                reply = PollReply(poll_s=self._poll_s)
                is_current = worker.newest_poll == number and not request.peer_hung_up()
                if is_current:
                    reply = PollReply(
                        poll_s=self._poll_s,
                        offers=ledger.offer(worker, session, free_slots=asked.free_slots, free_triggers=asked.free_triggers),
                        stops=ledger.stops(worker, asked.jobs),
                        intent=worker.intent if worker.intent.revision > asked.intent_revision else None,
                    )
                if asked.task_settings_revision not in (None, ledger.task_settings.revision):
                    reply = msgspec.structs.replace(reply, task_settings=ledger.task_settings)
                runtimes = ledger.runtimes_of(worker)
                if runtimes and is_current and asked.runtimes_revision not in (None, runtimes.revision):
                    reply = msgspec.structs.replace(reply, runtimes=runtimes)
                release = ledger.release_of(worker)
                if is_current and asked.release_serial not in (None, release.serial if release else 0):
                    reply = msgspec.structs.replace(reply, release=release, release_withdrawn=release is None)
                left_s = deadline - time.monotonic()
                if not is_current or left_s <= 0 or _is_urgent(reply):
                    break
                ledger.changed.wait(min(left_s, LOOK_S))

        def take_offers_back() -> None:
            with ledger.changed:
                ledger.withdraw(reply.offers)

        return Answer(200, encode(reply), {"content-type": "application/json"}, take_offers_back)

    def _tree(self, request: Request, worker: Worker, digest: str, answer: Callable[[str, CodeRequest], CodeAnswer]) -> Answer:
        with self._ledger.changed:
            self._ledger.check_session(worker, request.headers.get(SESSION_HEADER))
            self._ledger.check_tree(worker, digest)
            if not self._code.has(digest):
                raise Refusal(ProblemCode.NOT_FOUND, f"there is no tree {digest[:12]} any more")
            made = answer(digest, CodeRequest(request.query, request.headers, request.body))
        return Answer(made.status, made.body, made.headers, cut_after=made.cut_after, bytes_s=made.bytes_s)

    def _job(self, request: Request, worker: Worker, *, job_id: str, verb: str) -> Answer:
        ledger = self._ledger
        epoch = _epoch(request)
        with ledger.changed:
            ledger.check_session(worker, request.headers.get(SESSION_HEADER))
            ledger.expire_offers()
            if verb == "accept":
                ledger.accept(ledger.leased_job_of(worker, job_id, epoch))
            elif verb == "decline":
                job = ledger.leased_job_of(worker, job_id, epoch)
                ledger.decline(job, decode(Decline, request.body).reason)
            elif verb == "event":
                ledger.take_event(ledger.job_of(worker, job_id, epoch), decode(TriggerEvent, request.body))
            elif verb == "report":
                job = ledger.job_of(worker, job_id, epoch)
                ledger.conclude(job, decode(Report, request.body))
            else:
                job = ledger.job_of(worker, job_id, epoch)
                return _message(LogAppended(size=ledger.append_log(job, _offset(request), _unpacked(request, MAX_LOG_UNPACKED))))
        return Answer(204)

    def _execution(self, request: Request, worker: Worker, *, job_id: str, path: str) -> Answer:
        epoch = _epoch(request)
        if len(request.body) > self._body_bytes:
            raise Refusal(ProblemCode.TOO_LARGE, explain_too_large("the body", size=len(request.body), most=self._body_bytes))
        with self._ledger.changed:
            self._ledger.check_session(worker, request.headers.get(SESSION_HEADER))
            self._ledger.expire_offers()
            job = self._ledger.leased_job_of(worker, job_id, epoch)
            concluding = job.kind is JobKind.TASK and (request.method, path) == ("PATCH", f"task-instances/{job.ti_id}/state")
            if job.concluded_as is not None and not (concluding and request.body == job.concluded_as):
                raise Refusal(ProblemCode.INVALID, f"the task of job {job_id} has ended; only the same state may be repeated")
            if concluding and job.concluded_as is not None and job.has_moved_on:
                return Answer(204)  # a repetition, which has no effect
            if job.kind is JobKind.TASK:
                if (request.method, path) == ("PATCH", f"task-instances/{job.ti_id}/run"):
                    self._ledger.accept(job)
            elif not _is_open_to(job, request.method, path):
                detail = f"a job of the kind {job.kind.value} may not call {request.method} {path}"
                raise Refusal(ProblemCode.INVALID, detail)
        headers = {name: value for name, value in request.headers.items() if name in CALL_HEADERS}
        query = f"?{request.query}" if request.query else ""
        status, given, body = self.execution(job, request.method, path + query, headers, request.body)
        if concluding and status < 300:
            job.concluded_as = request.body
        if len(body) > self._body_bytes + ENVELOPE_BYTES:
            raise Refusal(ProblemCode.TOO_LARGE, explain_too_large("Airflow's answer", size=len(body), most=self._body_bytes))
        return Answer(status, body, {name.lower(): value for name, value in given.items() if name.lower() in ANSWER_HEADERS})


def _is_urgent(reply: PollReply) -> bool:
    """Return whether the reply ends its poll early."""
    return bool(reply.offers or reply.stops or reply.intent or reply.runtimes or reply.release or reply.release_withdrawn)


def _is_open_to(job: Job, method: str, path: str) -> bool:
    """Return whether a job that is not a task may make this call."""
    if job.kind is JobKind.TRIGGER:
        return not path.startswith("task-instances/")
    if job.kind is JobKind.CALLBACK:
        return method == "GET" and path.startswith(("connections/", "variables/"))
    own = f"connection-tests/{job.job_id}"
    return (method, path) in (("GET", f"{own}/connection"), ("PATCH", own))


def _message(message: msgspec.Struct, *, status: int = 200) -> Answer:
    return Answer(status, encode(message), {"content-type": "application/json"})


def _as_answer(refusal: Refusal) -> Answer:
    headers = {PROBLEM_HEADER: refusal.problem.code, "content-type": "application/problem+json"}
    return Answer(refusal.problem.status, encode(refusal.problem), headers)


def _bearer(request: Request) -> str:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise Refusal(ProblemCode.UNAUTHORIZED, "there is no bearer token in the request")
    return token.strip()


def _check_marker(request: Request) -> None:
    try:
        check_version(request.headers.get(MARKER_HEADER, ""))
    except VersionMismatch as error:
        missing = MARKER_HEADER not in request.headers
        raise Refusal(ProblemCode.INVALID if missing else ProblemCode.OUTDATED, f"{MARKER_HEADER}: {error}") from None


def _epoch(request: Request) -> int:
    return _number(request.headers.get(EPOCH_HEADER, ""), f"the header {EPOCH_HEADER}")


def _offset(request: Request) -> int:
    return _number(parse_qs(request.query).get("offset", [""])[0], "the query parameter offset")


def _stretch(request: Request) -> tuple[str, int]:
    name = parse_qs(request.query).get("stretch", [""])[0]
    if not re.fullmatch(r"[0-9A-Za-z-]{1,64}", name):
        raise Refusal(ProblemCode.INVALID, "the query parameter stretch must be 1 to 64 letters, digits or -")
    return name, _offset(request)


def _number(text: str, what: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise Refusal(ProblemCode.INVALID, f"{what} must be a number, not {text[:20]!r}")
    return int(text)


def _unpacked(request: Request, most: int) -> bytes:
    """Return the log's bytes; never unpack more than *most* bytes."""
    if len(request.body) > MAX_LOG_PACKED:
        raise Refusal(ProblemCode.TOO_LARGE, f"a log chunk has at most {MAX_LOG_PACKED} bytes on the wire")
    if "gzip" not in request.headers.get("content-encoding", ""):
        return request.body
    unpacker = zlib.decompressobj(wbits=31)  # 31: gzip with header and checksum
    try:
        text = unpacker.decompress(request.body, most + 1)
    except zlib.error as error:
        raise Refusal(ProblemCode.INVALID, f"the log chunk is not gzip: {error}") from None
    if len(text) > most:
        raise Refusal(ProblemCode.TOO_LARGE, f"this log's chunk has at most {most} bytes unpacked")
    if not unpacker.eof or unpacker.unused_data:
        raise Refusal(ProblemCode.INVALID, "the log chunk is not one whole gzip member: it was cut or has a tail")
    return text


def split_target(target: str) -> tuple[str, str]:
    """Return a request target's path and query."""
    parts = urlsplit(target)
    return parts.path, parts.query
