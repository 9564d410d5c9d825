"""Routes of a worker's session (open, poll, end) and of the worker's reports about itself."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import partial
from typing import Any

from airflow_remote_protocol.codec import decode
from airflow_remote_protocol.messages import (
    HeldJob,
    Poll,
    PollReply,
    Pong,
    Runtime,
    RuntimeNoted,
    Session,
    SessionRequest,
    Stop,
    Usage,
    UsageNoted,
)
from airflow_remote_protocol.version import (
    PROTOCOL_VERSION,
    SESSION_HEADER,
    Capability,
    agree,
)
from sqlalchemy.orm import Session as DatabaseSession
from starlette.requests import Request
from starlette.responses import Response

from airflow_remote_provider.api.admission.bodies import announced_bytes, read_body
from airflow_remote_provider.api.admission.holdings import holding_of
from airflow_remote_provider.api.admission.job_lists import FREE_JOBS
from airflow_remote_provider.api.dispatch.dispatcher import session_taken
from airflow_remote_provider.api.dispatch.waiting_room import News, Parked
from airflow_remote_provider.api.worker_v1.callers import MESSAGE_BYTES, json_response, require_version
from airflow_remote_provider.api.worker_v1.context import ApiContext
from airflow_remote_provider.api.worker_v1.enrolment import credential_life
from airflow_remote_provider.ledger import leases, sessions, site_runtimes, usage, workers
from airflow_remote_provider.ledger.errors import Cloned
from airflow_remote_provider.ledger.workers import WorkerRecord

CAPABILITIES = frozenset(Capability)


LIST_BYTES = 2 * 1024 * 1024
"""Limit of a poll or a session request. One that lists 10,000 jobs has 1 MB."""


USAGE_BYTES = 1024 * 1024


async def open_session(central: ApiContext, request: Request, worker: WorkerRecord) -> Response:
    asked = decode(SessionRequest, await _list_body(central, request, worker))
    require_version(asked.protocol)
    async with central.sessions.turn(worker.id):
        try:
            certificate = central.certificates.read_subject(request)
            record = await central.pool.workers.call(sessions.open_session, worker.id, asked, certificate=certificate)
        except Cloned:
            await central.pool.workers.call(sessions.flag_clone, worker.id)
            raise
        central.registry.remember(record)
        older = central.dispatcher.room.get(worker.id)
        if older is not None and older.worker.session_id != record.session_id:
            older.reply(session_taken())
        stops = await _renew(central, record, Poll(0, 0, 0, asked.jobs))
    if record.host is not None or record.release_host is not None:
        await central.runtimes.load()
        await central.runtimes.catch_up()
    left = await central.pool.workers.call(sessions.jobs_left, worker.id) if record.jobs_limit is not None else None
    planned = central.runtimes
    return json_response(
        Session(
            session_id=record.session_id or "",
            worker_id=record.id,
            name=record.name,
            protocol=PROTOCOL_VERSION,
            capabilities=sorted(capability.value for capability in agree(CAPABILITIES, asked.capabilities)),
            poll_s=central.settings.poll_seconds,
            retry_s=central.settings.retry_seconds,
            intent=record.intent,
            stops=stops,
            time=time.time(),
            credential_life_s=_life_s(central, record),
            body_bytes=central.settings.gateway_body_bytes,
            credential_age_s=max(0.0, time.time() - record.issued_at.timestamp()) if record.issued_at else 0.0,
            task_settings=central.task_settings,
            runtimes=planned.list_for(record.host) if record.host is not None else None,
            release=planned.release_for(record.release_host) if record.release_host is not None else None,
            jobs_left=left,
        )
    )


async def end_session(central: ApiContext, request: Request, worker: WorkerRecord) -> Response:
    ended = await central.pool.workers.call(sessions.end_session, worker.id, request.headers.get(SESSION_HEADER, ""))
    if ended is not None:
        central.registry.remember(ended)
    return Response(status_code=204)


def _life_s(central: ApiContext, record: WorkerRecord) -> float:
    """Return the lifetime of the worker's credential; for an old one without an expiry, the configured lifetime."""
    if record.expires_at is None or record.issued_at is None:
        return credential_life(central).total_seconds()
    return (record.expires_at - record.issued_at).total_seconds()


async def poll(central: ApiContext, request: Request, worker: WorkerRecord) -> Response:
    asked = decode(Poll, await _list_body(central, request, worker))
    holding_of(request).give_back()  # the body has been read, and the poll may be parked for a minute
    async with central.polls.turn(worker.id):
        stops = await _renew(central, worker, asked)
        if stops:
            return _reply(central, asked, News(stops=stops))
        if asked.intent_revision == worker.intent.revision != worker.received_revision:
            record = await central.pool.workers.call(workers.note_received_intent, worker.id, asked.intent_revision)
            worker = central.registry.remember(record)
    intent = worker.intent if worker.intent.revision > asked.intent_revision else None
    if worker.host is not None or worker.release_host is not None:
        await central.runtimes.load()
    runtimes, release = central.runtimes.news_for(worker, asked.runtimes_revision, asked.release_serial)
    if intent is not None or runtimes is not None or release is not None:
        return _reply(central, asked, News(intent=intent, runtimes=runtimes, release=release))
    parked = Parked(
        worker=worker,
        free_slots=asked.free_slots,
        stoppable=frozenset((job.job_id, job.epoch) for job in asked.jobs if leases.is_stoppable(job)),
        intent_revision=asked.intent_revision,
        answer=asyncio.get_running_loop().create_future(),
        free_triggers=asked.free_triggers,
        runtimes_revision=asked.runtimes_revision,
        release_serial=asked.release_serial,
    )
    central.dispatcher.park(parked)
    try:
        news = await _wait(request, parked, min(max(asked.wait_s, 0.0), central.settings.poll_seconds))
    finally:
        central.dispatcher.room.leave(parked)
    if isinstance(news, Exception):
        raise news
    return _reply(central, asked, news)


async def _list_body(central: ApiContext, request: Request, worker: WorkerRecord) -> bytes:
    """Return a body that lists jobs. A list of many more jobs than are leased to the worker is charged as several calls.

    Raises:
        Refusal: `busy`: this worker sends long lists too often; `too-large`, `too-slow`.
    """
    announced = announced_bytes(request)
    central.job_lists.take(worker.id, announced)
    body = await read_body(request, LIST_BYTES)
    if len(body) > announced:
        central.job_lists.take(worker.id, len(body))
    return body


async def _renew(central: ApiContext, worker: WorkerRecord, poll: Poll) -> list[Stop]:
    if not poll.jobs:
        return []
    deadline = timedelta(seconds=central.settings.offer_deadline_seconds)
    prepare = timedelta(seconds=central.settings.prepare_seconds)
    renew = partial(leases.renew, deadline=deadline, prepare=prepare)
    if len(poll.jobs) <= FREE_JOBS:
        return await central.pool.workers.call(renew, worker.id, poll.jobs)
    stops, leased = await central.pool.workers.call(_renew_and_count, renew, worker.id, poll.jobs)
    central.job_lists.note(worker.id, leased)
    return stops


def _renew_and_count(
    session: DatabaseSession, renew: Callable[..., list[Stop]], worker_id: str, held: Sequence[HeldJob]
) -> tuple[list[Stop], int]:
    """Renew the listed jobs; return the stops, and how many jobs are leased to the worker."""
    return renew(session, worker_id, held), leases.count_leased(session, worker_id)


async def _wait(request: Request, parked: Parked, wait_s: float) -> News | Exception:
    """Wait for news for at most *wait_s*, or until the client has disconnected, after which no answer can be sent."""
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


def _reply(central: ApiContext, asked: Poll, news: News) -> Response:
    ours, theirs = central.task_settings, asked.task_settings_revision
    return json_response(
        PollReply(
            central.settings.poll_seconds,
            news.offers,
            news.stops,
            news.intent,
            news.pause_s,
            None if theirs is None or theirs == ours.revision else ours,
            news.runtimes,
            news.release.wanted if news.release else None,
            news.release is not None and news.release.wanted is None,
        )
    )


async def ping(_central: ApiContext, _request: Request, worker: WorkerRecord) -> Response:
    return json_response(Pong(worker.name, time.time()))


async def report_usage(central: ApiContext, request: Request, worker: WorkerRecord) -> Response:
    central.usage_limits.take(worker.id)
    report = decode(Usage, await read_body(request, USAGE_BYTES))
    await central.pool.workers.call(usage.note, worker.id, report)
    return json_response(UsageNoted(central.usage_interval.note_report(worker.id, asyncio.get_running_loop().time())))


async def report_runtime(central: ApiContext, request: Request, worker: WorkerRecord) -> Response:
    report = decode(Runtime, await read_body(request, MESSAGE_BYTES))
    trouble = await central.pool.workers.call(site_runtimes.note, worker.id, report)
    return json_response(RuntimeNoted(trouble))
