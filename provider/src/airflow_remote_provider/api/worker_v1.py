"""The routes of `/remote/v1` (docs/protocol.md): parse, check who speaks, call one ledger verb, answer."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from functools import partial
from typing import Any

import anyio
import msgspec
from airflow_remote_protocol import bounds
from airflow_remote_protocol.bounds import OutOfBounds
from airflow_remote_protocol.codec import decode, encode
from airflow_remote_protocol.errors import ProblemCode
from airflow_remote_protocol.messages import (
    ChunkResult,
    ChunkResults,
    Credential,
    Decline,
    Enrolment,
    HeldJob,
    LogAppended,
    LogChunk,
    LogChunks,
    Poll,
    PollReply,
    Pong,
    Report,
    Runtime,
    RuntimeNoted,
    Session,
    SessionRequest,
    Stop,
    TriggerEvent,
    Usage,
    UsageNoted,
)
from airflow_remote_protocol.tokens import TokenKind
from airflow_remote_protocol.version import (
    EPOCH_HEADER,
    MARKER_HEADER,
    PROTOCOL_VERSION,
    SESSION_HEADER,
    Capability,
    VersionMismatch,
    agree,
    check_version,
)
from sqlalchemy.orm import Session as DatabaseSession
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from airflow_remote_provider import metrics
from airflow_remote_provider.api.auth import bearer, credential_hash
from airflow_remote_provider.api.bodies import announced_bytes, read_body, unpack
from airflow_remote_provider.api.central import Central
from airflow_remote_provider.api.dispatcher import session_taken
from airflow_remote_provider.api.guesses import network_of
from airflow_remote_provider.api.holdings import holding_of
from airflow_remote_provider.api.job_bounds import within_bounds
from airflow_remote_provider.api.lists import FREE_JOBS
from airflow_remote_provider.api.people import looks_like_a_users, manager_of_workers
from airflow_remote_provider.api.problems import Refusal, as_response, problem_response
from airflow_remote_provider.api.sending import Endpoint, places_of
from airflow_remote_provider.api.waiting import News, Parked
from airflow_remote_provider.ledger import breaker, credentials, leases, rotation, runtimes, usage, workers
from airflow_remote_provider.ledger.errors import Cloned, LedgerError, NotYours, TokenRefused, TooLate
from airflow_remote_provider.ledger.leases import Lease
from airflow_remote_provider.ledger.presentable import presentable
from airflow_remote_provider.ledger.workers import WorkerRecord
from airflow_remote_provider.logstores import OutOfStep, Unstorable

OURS = frozenset(Capability)
MESSAGE_BYTES = 64 * 1024
"""Of a message without a list: the longest text in one has 2,000 characters."""
LIST_BYTES = 2 * 1024 * 1024
"""Of a poll or a session: one that lists 10,000 jobs is 1 MB."""
ENROLMENT_WINDOW_S = 5.0
"""How long the body of an enrolment may stand still. A person waits for it, who can try again."""
ENROLMENT_WITHIN_S = 15.0
"""How long it may take in all."""
EVENT_BYTES = 4 * 1024 * 1024
"""Of a trigger's event, with the XComs of a task that it ends. The worker bounds a payload to 1 MiB."""
LOG_PACKED_BYTES = 1024 * 1024
LOG_BYTES = 8 * 1024 * 1024
OWN_LOG_BYTES = 1024 * 1024
"""A worker says little of itself; what it sends at once is bounded here, how often by `shares.OWN_LOG_CALLS_PER_S`."""
USAGE_BYTES = 1024 * 1024
LONGEST_LOG = 1 << 62

STRETCH = re.compile(r"[0-9A-Za-z-]{1,64}")
JOB_ID = re.compile(r"[0-9A-Za-z-]{1,36}")

Handler = Callable[[Central, Request, WorkerRecord], Awaitable[Response]]
JobHandler = Callable[[Central, Request, Lease], Awaitable[Response]]


def routes(central: Central) -> list[Route]:
    """Return all routes; anything else under our prefix needs a credential too, and is then `not-found`."""
    anything = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
    return [
        _route(central, "/enrol", _enrol, ["POST"]),
        _route(central, "/credential", partial(_as_worker, _credential), ["POST"]),
        _route(central, "/session", partial(_as_worker, _session), ["POST"]),
        _route(central, "/session/end", partial(_in_session, _end_session), ["POST"]),
        _route(central, "/poll", partial(_in_session, _poll), ["POST"]),
        _route(central, "/jobs/{job_id}/accept", partial(_on_job, _accept), ["POST"]),
        _route(central, "/jobs/{job_id}/decline", partial(_on_job, _decline), ["POST"]),
        _route(central, "/jobs/{job_id}/event", partial(_on_job, _event), ["POST"]),
        _route(central, "/jobs/{job_id}/report", partial(_on_job, _report), ["POST"]),
        _route(central, "/jobs/{job_id}/log", partial(_on_job, _log), ["POST"]),
        _route(central, "/jobs/{job_id}/execution/{path:path}", partial(_on_job, within_bounds), anything),
        _route(central, "/logs", partial(_in_session, _logs), ["POST"]),
        _route(central, "/log", partial(_in_session, _own_log), ["POST"]),
        _route(central, "/usage", partial(_in_session, _usage), ["POST"]),
        _route(central, "/runtime", partial(_in_session, _runtime), ["POST"]),
        _route(central, "/ping", partial(_as_worker, _ping), ["GET"]),
        _route(central, "/leave", partial(_as_worker, _leave), ["POST"]),
        _route(central, "/{path:path}", partial(_as_worker, _nothing_here), anything),
    ]


def _route(central: Central, path: str, handle: Callable[[Central, Request], Awaitable[Response]], methods: list[str]) -> Route:
    async def answer(request: Request) -> Response:
        try:
            return await handle(central, request)
        except ClientDisconnect:
            return Response(status_code=499)
        except Exception as error:
            return as_response(error)

    return Route(path, Endpoint(answer), methods=methods)


# Who speaks


async def _as_worker(handle: Handler, central: Central, request: Request) -> Response:
    # Until the certificate is checked too, nothing is charged to the worker: its credential may have been stolen.
    charge_source = partial(central.strangers.take, network_of(_source(request)))
    worker = await central.registry.identify(request.headers.get("authorization"), _source(request), on_strange=charge_source)
    shown = central.certificates.shown(request)
    if not central.certificates.fits(worker, shown):
        charge_source()
        await central.certificates.insist(worker, shown, partial(_anew, central, request))
    central.shares.take(worker.id)
    _check_version(request.headers.get(MARKER_HEADER, ""))
    central.duties.heard(worker.id)
    central.holdings.of(request, worker.id)
    return await handle(central, request, worker)


async def _anew(central: Central, request: Request) -> WorkerRecord:
    """Return the worker that speaks as the ledger knows it now."""
    await central.registry.catch_up()
    return await central.registry.identify(request.headers.get("authorization"))


async def _in_session(handle: Handler, central: Central, request: Request) -> Response:
    async def checked(central: Central, request: Request, worker: WorkerRecord) -> Response:
        session_id = request.headers.get(SESSION_HEADER)
        if session_id != worker.session_id:
            worker = await _anew(central, request)  # another process may have opened it
        if session_id is None or session_id != worker.session_id:
            raise session_taken()
        return await handle(central, request, worker)

    return await _as_worker(checked, central, request)


async def _on_job(handle: JobHandler, central: Central, request: Request) -> Response:
    async def fenced(central: Central, request: Request, worker: WorkerRecord) -> Response:
        try:
            epoch = int(request.headers.get(EPOCH_HEADER, ""))
        except ValueError:
            raise Refusal(ProblemCode.INVALID, f"a request about a job needs the header {EPOCH_HEADER} with its epoch") from None
        job_id = request.path_params["job_id"]
        if not JOB_ID.fullmatch(job_id):
            raise NotYours(presentable(job_id, longest=36))
        places_of(request).enter_context(central.shares.place(worker.id))
        return await handle(central, request, Lease(worker.id, job_id, epoch))

    return await _in_session(fenced, central, request)


def _check_version(theirs: str) -> None:
    try:
        check_version(theirs)
    except VersionMismatch as error:
        raise Refusal(ProblemCode.OUTDATED, str(error)) from None


def _json(message: object) -> Response:
    return Response(encode(message), media_type="application/json")  # type: ignore[arg-type]


# Worker


async def _enrol(central: Central, request: Request) -> Response:
    source, authorization = _source(request), request.headers.get("authorization")
    central.guesses.insist_on_few(source)
    certificate = central.certificates.shown(request)
    name = "unnamed"  # who has no token is not asked for its name
    try:
        _check_version(request.headers.get(MARKER_HEADER, ""))
        async with central.enrolments.place():
            central.guesses.insist_on_few(source)  # while this call waited others may have failed
            # Before the body: who may not join can't have us keep anything.
            if looks_like_a_users(authorization):
                user = await manager_of_workers(authorization or "")
                verb = partial(credentials.enrol_for, by=user)
            else:
                token = bearer(authorization, TokenKind.ENROLMENT)
                await central.pool.workers.call(credentials.check_token, token, source=source)
                verb = partial(credentials.enrol, token=token, source=source)
        wish = decode(Enrolment, await _enrolment_body(request))
        name = wish.name
        enrolled = await central.pool.workers.call(
            lambda session: verb(session, request=wish, life=_life(central), certificate=certificate)
        )
    except (Refusal, TokenRefused) as error:
        if error.code in (ProblemCode.UNAUTHORIZED, ProblemCode.TOKEN_REFUSED):
            central.guesses.note_failure(source)
        if error.code is ProblemCode.TOKEN_REFUSED:
            await central.pool.workers.call(credentials.note_refused, source, name, str(error))
        raise
    return Response(encode(enrolled), 201, media_type="application/json")


async def _enrolment_body(request: Request) -> bytes:
    """Raises: Refusal: `too-large`, `too-slow`."""
    with anyio.move_on_after(ENROLMENT_WITHIN_S):
        return await read_body(request, MESSAGE_BYTES, window_s=ENROLMENT_WINDOW_S)
    raise Refusal(ProblemCode.TOO_SLOW, f"the enrolment was not sent within {ENROLMENT_WITHIN_S:g} s; try again")


async def _credential(central: Central, request: Request, worker: WorkerRecord) -> Response:
    presented = credential_hash(request.headers.get("authorization"))
    made, record = await central.pool.workers.call(rotation.issue, worker.id, presented, life=_life(central))
    central.registry.remember(record)
    return _json(Credential(made, _life(central).total_seconds()))


def _life(central: Central) -> timedelta:
    return timedelta(days=central.settings.credential_days)


def _source(request: Request) -> str:
    """Return from where the call comes, as far as we can see: behind a proxy, what uvicorn takes its word for."""
    return request.client.host if request.client else ""


async def _session(central: Central, request: Request, worker: WorkerRecord) -> Response:
    asked = decode(SessionRequest, await _list_body(central, request, worker))
    _check_version(asked.protocol)
    async with central.sessions.turn(worker.id):
        try:
            certificate = central.certificates.shown(request)
            record = await central.pool.workers.call(workers.open_session, worker.id, asked, certificate=certificate)
        except Cloned:
            await central.pool.workers.call(workers.flag_clone, worker.id)
            raise
        central.registry.remember(record)
        older = central.dispatcher.room.get(worker.id)
        if older is not None and older.worker.session_id != record.session_id:
            older.tell(session_taken())
        stops = await _renew(central, record, Poll(0, 0, 0, asked.jobs))
    return _json(
        Session(
            session_id=record.session_id or "",
            worker_id=record.id,
            name=record.name,
            protocol=PROTOCOL_VERSION,
            capabilities=sorted(capability.value for capability in agree(OURS, asked.capabilities)),
            poll_s=central.settings.poll_seconds,
            retry_s=central.settings.retry_seconds,
            intent=record.intent,
            stops=stops,
            time=time.time(),
            credential_life_s=_life_s(central, record),
            body_bytes=central.settings.gateway_body_bytes,
            credential_age_s=max(0.0, time.time() - record.issued_at.timestamp()) if record.issued_at else 0.0,
            task_settings=central.task_settings,
        )
    )


async def _end_session(central: Central, request: Request, worker: WorkerRecord) -> Response:
    ended = await central.pool.workers.call(workers.end_session, worker.id, request.headers.get(SESSION_HEADER, ""))
    if ended is not None:
        central.registry.remember(ended)
    return Response(status_code=204)


def _life_s(central: Central, record: WorkerRecord) -> float:
    """Return the life of the worker's credential; of one that was made before credentials ended, what it should be."""
    if record.expires_at is None or record.issued_at is None:
        return _life(central).total_seconds()
    return (record.expires_at - record.issued_at).total_seconds()


async def _poll(central: Central, request: Request, worker: WorkerRecord) -> Response:
    asked = decode(Poll, await _list_body(central, request, worker))
    holding_of(request).give_back()  # it is read, and the poll may be parked for a minute
    async with central.polls.turn(worker.id):
        stops = await _renew(central, worker, asked)
        if stops:
            return _reply(central, asked, News(stops=stops))
        if asked.intent_revision == worker.intent.revision != worker.heard_revision:
            heard = await central.pool.workers.call(workers.note_heard, worker.id, asked.intent_revision)
            worker = central.registry.remember(heard)
    if worker.intent.revision > asked.intent_revision:
        return _reply(central, asked, News(intent=worker.intent))
    parked = Parked(
        worker=worker,
        free_slots=asked.free_slots,
        stoppable=frozenset((job.job_id, job.epoch) for job in asked.jobs if leases.is_stoppable(job)),
        intent_revision=asked.intent_revision,
        answer=asyncio.get_running_loop().create_future(),
        free_triggers=asked.free_triggers,
    )
    central.dispatcher.park(parked)
    try:
        news = await _wait(request, parked, min(max(asked.wait_s, 0.0), central.settings.poll_seconds))
    finally:
        central.dispatcher.room.leave(parked)
    if isinstance(news, Exception):
        raise news
    return _reply(central, asked, news)


async def _list_body(central: Central, request: Request, worker: WorkerRecord) -> bytes:
    """Return a body that lists jobs. One that lists far more than is leased to the worker costs as much as many calls.

    Raises:
        Refusal: `busy`: this worker sends too long lists too often; `too-large`, `too-slow`.
    """
    announced = announced_bytes(request)
    central.lists.take(worker.id, announced)
    body = await read_body(request, LIST_BYTES)
    if len(body) > announced:
        central.lists.take(worker.id, len(body))
    return body


async def _renew(central: Central, worker: WorkerRecord, poll: Poll) -> list[Stop]:
    if not poll.jobs:
        return []
    deadline = timedelta(seconds=central.settings.offer_deadline_seconds)
    if len(poll.jobs) <= FREE_JOBS:
        return await central.pool.workers.call(leases.renew, worker.id, poll.jobs, deadline=deadline)
    stops, leased = await central.pool.workers.call(_renew_and_count, worker.id, poll.jobs, deadline=deadline)
    central.lists.note(worker.id, leased)
    return stops


def _renew_and_count(
    session: DatabaseSession, worker_id: str, held: Sequence[HeldJob], *, deadline: timedelta
) -> tuple[list[Stop], int]:
    """As :func:`..ledger.leases.renew`, and how many jobs are leased to the worker."""
    return leases.renew(session, worker_id, held, deadline=deadline), leases.count_leased(session, worker_id)


async def _wait(request: Request, parked: Parked, wait_s: float) -> News | Exception:
    """Wait for news, at most *wait_s*, or until the client has gone (then nothing can be told to this poll any more)."""
    gone = asyncio.ensure_future(_disconnected(request))
    waiting: list[asyncio.Future[Any]] = [parked.answer, gone]
    try:
        await asyncio.wait(waiting, timeout=wait_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        gone.cancel()
    return parked.answer.result() if parked.answer.done() else News()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _reply(central: Central, asked: Poll, news: News) -> Response:
    ours, theirs = central.task_settings, asked.task_settings_revision
    return _json(
        PollReply(
            central.settings.poll_seconds,
            news.offers,
            news.stops,
            news.intent,
            news.pause_s,
            None if theirs is None or theirs == ours.revision else ours,
        )
    )


async def _ping(_central: Central, _request: Request, worker: WorkerRecord) -> Response:
    return _json(Pong(worker.name, time.time()))


async def _own_log(central: Central, request: Request, worker: WorkerRecord) -> Response:
    stretch, offset = request.query_params.get("stretch", ""), _offset(request)
    if not STRETCH.fullmatch(stretch):
        raise Refusal(ProblemCode.INVALID, "a worker's own log needs ?stretch= with 1 to 64 letters, digits or -")
    central.own_log_shares.take(worker.id)
    body = await _log_body(request, OWN_LOG_BYTES)
    # In the lane of polls, not of jobs: no task waits behind it.
    append = central.pool.workers.blocking(lambda: central.own_logs.append(worker.id, stretch, offset, body()))
    size = await _in_step(append)
    return _json(LogAppended(size))


async def _usage(central: Central, request: Request, worker: WorkerRecord) -> Response:
    central.usage_shares.take(worker.id)
    told = decode(Usage, await read_body(request, USAGE_BYTES))
    await central.pool.workers.call(usage.note, worker.id, told)
    return _json(UsageNoted(central.usage_pace.next_s(worker.id, asyncio.get_running_loop().time())))


async def _runtime(central: Central, request: Request, worker: WorkerRecord) -> Response:
    told = decode(Runtime, await read_body(request, MESSAGE_BYTES))
    trouble = await central.pool.workers.call(runtimes.note, worker.id, told)
    return _json(RuntimeNoted(trouble))


async def _leave(central: Central, _request: Request, worker: WorkerRecord) -> Response:
    await central.pool.workers.call(credentials.leave, worker.id)
    await central.registry.catch_up()
    return Response(status_code=204)


async def _nothing_here(_central: Central, request: Request, _worker: WorkerRecord) -> Response:
    return problem_response(ProblemCode.NOT_FOUND, f"there is no {request.method} {request.url.path}")


# Jobs


async def _accept(central: Central, _request: Request, lease: Lease) -> Response:
    subject = await central.pool.jobs.call(leases.accept, lease)
    central.beginnings.note_start(lease)
    await central.task_logs.create(subject.log_path)
    return Response(status_code=204)


async def _decline(central: Central, request: Request, lease: Lease) -> Response:
    said = decode(Decline, await read_body(request, MESSAGE_BYTES))
    delay = timedelta(seconds=central.settings.reoffer_delay_seconds)
    central.checks.forget(lease)
    await central.pool.jobs.call(leases.decline, lease, said.reason, delay=delay)
    return Response(status_code=204)


async def _report(central: Central, request: Request, lease: Lease) -> Response:
    said = decode(Report, await read_body(request, MESSAGE_BYTES))
    central.checks.forget(lease)
    try:
        end = await central.pool.jobs.call(leases.report, lease, said)
    except TooLate:
        await central.pool.jobs.call(leases.note_late, lease, said)
        raise
    if end is not None:
        await _note_end(central, lease, end)
    central.beginnings.forget(lease)
    central.dispatcher.freed(lease.worker_id)
    return Response(status_code=204)


async def _note_end(central: Central, lease: Lease, end: leases.End) -> None:
    """Count jobs that failed before they had begun, and forget those before a job that had.

    In a transaction of its own: the report's holds the job's lock, and whoever offers jobs locks the worker first.
    """
    if central.beginnings.says_nothing(lease) and not end.has_written:
        return
    has_begun = central.beginnings.has_begun(lease)
    if end.is_success or end.has_written or has_begun:
        if central.registry.early_failures(lease.worker_id):
            await central.pool.jobs.call(breaker.note_begun, lease.worker_id)
    elif has_begun is False or not end.was_accepted:
        worker = await central.pool.jobs.call(breaker.note_failure, lease, end.reason)
        if worker is not None:
            # The next job's end may come before the news of this one; and the worker's open poll hears of a pause.
            central.registry.on_change(central.registry.remember(worker))


async def _event(central: Central, request: Request, lease: Lease) -> Response:
    body = await read_body(request, EVENT_BYTES)
    event = decode(TriggerEvent, body)
    try:
        await central.pool.jobs.blocking(partial(_check_event, event, body))
    except OutOfBounds as error:
        raise Refusal(ProblemCode.INVALID, f"the event is not taken: {error}") from None
    central.checks.forget(lease)
    await central.pool.jobs.call(leases.fire, lease, event)
    central.dispatcher.freed(lease.worker_id)
    return Response(status_code=204)


def _check_event(event: TriggerEvent, body: bytes) -> None:
    """Raises: OutOfBounds."""
    bounds.check_json(body)
    for value in event.xcoms.values():
        bounds.check_xcom(msgspec.json.decode(value))


async def _logs(central: Central, request: Request, worker: WorkerRecord) -> Response:
    """Append pieces of many logs; what is wrong with one disturbs no other."""
    central.trigger_log_shares.take(worker.id)
    with central.shares.place(worker.id):
        body = await _log_body(request, LOG_BYTES)
        chunks = decode(LogChunks, await central.pool.jobs.blocking(body)).chunks
        results = [await _append_chunk(central, Lease(worker.id, chunk.job_id, chunk.epoch), chunk) for chunk in chunks]
    return _json(ChunkResults(results))


async def _append_chunk(central: Central, lease: Lease, chunk: LogChunk) -> ChunkResult:
    size, refused = 0, ""
    try:
        size = await central.task_logs.append(lease, chunk.offset, chunk.text.encode)
        metrics.count("remote.log.bytes", max(0, size - chunk.offset))
    except OutOfStep as step:
        size = max(0, step.size)
    except (LedgerError, Unstorable) as error:
        refused = str(error)
    return ChunkResult(chunk.job_id, chunk.epoch, size, refused)


async def _log(central: Central, request: Request, lease: Lease) -> Response:
    offset, body = _offset(request), await _log_body(request, LOG_BYTES)
    size = await _in_step(central.task_logs.append(lease, offset, body))
    metrics.count("remote.log.bytes", max(0, size - offset))
    return _json(LogAppended(size))


def _offset(request: Request) -> int:
    try:
        offset = int(request.query_params["offset"])
        if not 0 <= offset < LONGEST_LOG:
            raise ValueError
    except (KeyError, ValueError):
        raise Refusal(ProblemCode.INVALID, "a log chunk needs ?offset= with a number of bytes from 0 on") from None
    return offset


async def _log_body(request: Request, most: int) -> Callable[[], bytes]:
    """Return what unpacks the chunk; that is work for a thread."""
    body = await read_body(request, LOG_PACKED_BYTES)
    packed = request.headers.get("content-encoding", "") == "gzip"
    return lambda: unpack(body, most) if packed else body


async def _in_step(append: Awaitable[int]) -> int:
    try:
        return await append
    except OutOfStep as step:
        raise Refusal(
            ProblemCode.LOG_OFFSET, f"central holds {step.size} bytes of this log; go on from there", size=max(0, step.size)
        ) from None
