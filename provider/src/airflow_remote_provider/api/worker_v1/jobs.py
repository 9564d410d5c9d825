"""Routes about one job: accept, decline, report, and the event of a trigger."""

from __future__ import annotations

from datetime import timedelta
from functools import partial

import msgspec
from airflow_remote_protocol import bounds
from airflow_remote_protocol.bounds import OutOfBounds
from airflow_remote_protocol.codec import decode
from airflow_remote_protocol.errors import ProblemCode
from airflow_remote_protocol.messages import (
    Decline,
    Report,
    TriggerEvent,
)
from starlette.requests import Request
from starlette.responses import Response

from airflow_remote_provider.api.admission.bodies import read_body
from airflow_remote_provider.api.problems import Refusal
from airflow_remote_provider.api.worker_v1.callers import MESSAGE_BYTES
from airflow_remote_provider.api.worker_v1.context import ApiContext
from airflow_remote_provider.ledger import breaker, leases
from airflow_remote_provider.ledger.errors import TooLate
from airflow_remote_provider.ledger.fence import WorkerLease

EVENT_BYTES = 4 * 1024 * 1024
"""Limit of a trigger's event, with the XComs of a task that it ends. The worker limits a payload to 1 MiB."""


async def accept(central: ApiContext, _request: Request, lease: WorkerLease) -> Response:
    subject = await central.pool.jobs.call(leases.accept, lease)
    central.started_jobs.note_start(lease)
    await central.task_logs.create(subject.log_path)
    return Response(status_code=204)


async def decline(central: ApiContext, request: Request, lease: WorkerLease) -> Response:
    said = decode(Decline, await read_body(request, MESSAGE_BYTES))
    delay = timedelta(seconds=central.settings.reoffer_delay_seconds)
    central.lease_cache.forget(lease)
    await central.pool.jobs.call(leases.decline, lease, said.reason, delay=delay)
    return Response(status_code=204)


async def report(central: ApiContext, request: Request, lease: WorkerLease) -> Response:
    said = decode(Report, await read_body(request, MESSAGE_BYTES))
    central.lease_cache.forget(lease)
    try:
        end = await central.pool.jobs.call(leases.report, lease, said)
    except TooLate:
        await central.pool.jobs.call(leases.note_late, lease, said)
        raise
    if end is not None:
        await _note_end(central, lease, end)
    central.started_jobs.forget(lease)
    central.dispatcher.note_free_slots(lease.worker_id)
    return Response(status_code=204)


async def _note_end(central: ApiContext, lease: WorkerLease, end: leases.JobEnd) -> None:
    """Count jobs that failed before their own code began; reset the count when a job has begun.

    In its own transaction: the report's transaction holds the job's lock, while an offer locks the worker first.
    """
    if central.started_jobs.is_inconclusive(lease) and not end.has_written:
        return
    has_begun = central.started_jobs.has_begun(lease)
    if end.is_success or end.has_written or has_begun:
        if central.registry.early_failures(lease.worker_id):
            await central.pool.jobs.call(breaker.note_begun, lease.worker_id)
    elif has_begun is False or not end.was_accepted:
        worker = await central.pool.jobs.call(breaker.note_failure, lease, end.reason)
        if worker is not None:
            # At once, because the next job may end before the notification arrives; and the open poll must receive a pause.
            central.registry.on_change(central.registry.remember(worker))


async def report_event(central: ApiContext, request: Request, lease: WorkerLease) -> Response:
    body = await read_body(request, EVENT_BYTES)
    event = decode(TriggerEvent, body)
    try:
        await central.pool.jobs.blocking(partial(_check_event, event, body))
    except OutOfBounds as error:
        raise Refusal(ProblemCode.INVALID, f"the event is refused: {error}") from None
    central.lease_cache.forget(lease)
    await central.pool.jobs.call(leases.fire, lease, event)
    central.dispatcher.note_free_slots(lease.worker_id)
    return Response(status_code=204)


def _check_event(event: TriggerEvent, body: bytes) -> None:
    """Raises: OutOfBounds."""
    bounds.check_json(body)
    for value in event.xcoms.values():
        bounds.check_xcom(msgspec.json.decode(value))
