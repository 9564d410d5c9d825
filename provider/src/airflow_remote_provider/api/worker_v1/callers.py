"""Authenticates calls: of a worker by its credential, in its session, about a job that is leased to it."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from functools import partial

from airflow_remote_protocol.codec import encode
from airflow_remote_protocol.errors import ProblemCode
from airflow_remote_protocol.version import (
    EPOCH_HEADER,
    MARKER_HEADER,
    SESSION_HEADER,
    VersionMismatch,
    check_version,
)
from starlette.requests import Request
from starlette.responses import Response

from airflow_remote_provider.api.admission.failed_enrolments import network_of
from airflow_remote_provider.api.dispatch.dispatcher import session_taken
from airflow_remote_provider.api.problems import Refusal
from airflow_remote_provider.api.worker_v1.context import ApiContext
from airflow_remote_provider.api.worker_v1.sending import places_of
from airflow_remote_provider.ledger.errors import NoSuchJob
from airflow_remote_provider.ledger.fence import WorkerLease
from airflow_remote_provider.ledger.presentable import presentable
from airflow_remote_provider.ledger.workers import WorkerRecord

MESSAGE_BYTES = 64 * 1024
"""Limit of a message without a list. Its longest text has 2,000 characters."""


JOB_ID = re.compile(r"[0-9A-Za-z-]{1,36}")


Handler = Callable[[ApiContext, Request, WorkerRecord], Awaitable[Response]]


JobHandler = Callable[[ApiContext, Request, WorkerLease], Awaitable[Response]]


async def as_worker(handle: Handler, central: ApiContext, request: Request) -> Response:
    # Until the certificate is checked, too, charge the source and not the worker: its credential may have been stolen.
    charge_source = partial(central.unknown_callers.take, network_of(source_of(request)))
    worker = await central.registry.identify(request.headers.get("authorization"), source_of(request), on_unknown=charge_source)
    subject = central.certificates.read_subject(request)
    if not central.certificates.matches(worker, subject):
        charge_source()
        await central.certificates.require_bound(worker, subject, partial(reread_worker, central, request))
    central.rate_limits.take(worker.id)
    require_version(request.headers.get(MARKER_HEADER, ""))
    central.duties.note_contact(worker.id)
    central.holdings.open(request, worker.id)
    return await handle(central, request, worker)


async def reread_worker(central: ApiContext, request: Request) -> WorkerRecord:
    """Return the calling worker's current row of the ledger."""
    await central.registry.catch_up()
    return await central.registry.identify(request.headers.get("authorization"))


async def in_session(handle: Handler, central: ApiContext, request: Request) -> Response:
    async def checked(central: ApiContext, request: Request, worker: WorkerRecord) -> Response:
        session_id = request.headers.get(SESSION_HEADER)
        if session_id != worker.session_id:
            worker = await reread_worker(central, request)  # another process may have opened the session
        if session_id is None or session_id != worker.session_id:
            raise session_taken()
        return await handle(central, request, worker)

    return await as_worker(checked, central, request)


async def on_job(handle: JobHandler, central: ApiContext, request: Request) -> Response:
    async def fenced(central: ApiContext, request: Request, worker: WorkerRecord) -> Response:
        try:
            epoch = int(request.headers.get(EPOCH_HEADER, ""))
        except ValueError:
            raise Refusal(ProblemCode.INVALID, f"a request about a job needs the header {EPOCH_HEADER} with its epoch") from None
        job_id = request.path_params["job_id"]
        if not JOB_ID.fullmatch(job_id):
            raise NoSuchJob(presentable(job_id, longest=36))
        places_of(request).enter_context(central.rate_limits.place(worker.id))
        return await handle(central, request, WorkerLease(worker.id, job_id, epoch))

    return await in_session(fenced, central, request)


def require_version(theirs: str) -> None:
    try:
        check_version(theirs)
    except VersionMismatch as error:
        raise Refusal(ProblemCode.OUTDATED, str(error)) from None


def json_response(message: object) -> Response:
    return Response(encode(message), media_type="application/json")  # type: ignore[arg-type]


def source_of(request: Request) -> str:
    """Return the caller's address as far as it is known. Behind a proxy, uvicorn takes it from a proxy that it trusts."""
    return request.client.host if request.client else ""
