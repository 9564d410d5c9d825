"""Routes of logs: a job's log, the logs of many triggers, and the worker log."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable

from airflow_remote_protocol.codec import decode
from airflow_remote_protocol.errors import ProblemCode
from airflow_remote_protocol.messages import (
    ChunkResult,
    ChunkResults,
    LogAppended,
    LogChunk,
    LogChunks,
)
from starlette.requests import Request
from starlette.responses import Response

from airflow_remote_provider import metrics
from airflow_remote_provider.api.admission.bodies import read_body, unpack
from airflow_remote_provider.api.problems import Refusal
from airflow_remote_provider.api.worker_v1.callers import json_response
from airflow_remote_provider.api.worker_v1.context import ApiContext
from airflow_remote_provider.ledger.errors import LedgerError
from airflow_remote_provider.ledger.fence import WorkerLease
from airflow_remote_provider.ledger.workers import WorkerRecord
from airflow_remote_provider.stores import Unstorable, WrongOffset

LOG_PACKED_BYTES = 1024 * 1024


LOG_BYTES = 8 * 1024 * 1024


WORKER_LOG_BYTES = 1024 * 1024
"""Limit of one chunk of the worker log, which is short. The calls are limited by `rate_limits.WORKER_LOG_CALLS_PER_S`."""


LONGEST_LOG = 1 << 62


STRETCH = re.compile(r"[0-9A-Za-z-]{1,64}")


async def append_worker_log(central: ApiContext, request: Request, worker: WorkerRecord) -> Response:
    stretch, offset = request.query_params.get("stretch", ""), _offset(request)
    if not STRETCH.fullmatch(stretch):
        raise Refusal(ProblemCode.INVALID, "a worker log needs ?stretch= with 1 to 64 letters, digits or -")
    central.worker_log_limits.take(worker.id)
    body = await _log_body(request, WORKER_LOG_BYTES)
    # In the lane of polls rather than jobs, so that no task waits for it.
    append = central.pool.workers.blocking(
        lambda: central.worker_logs.append(worker.id, stretch=stretch, offset=offset, body=body())
    )
    size = await _in_step(append)
    return json_response(LogAppended(size))


async def append_many(central: ApiContext, request: Request, worker: WorkerRecord) -> Response:
    """Append chunks of many logs. An error of one chunk does not affect the others."""
    central.trigger_log_limits.take(worker.id)
    with central.rate_limits.place(worker.id):
        body = await _log_body(request, LOG_BYTES)
        chunks = decode(LogChunks, await central.pool.jobs.blocking(body)).chunks
        results = [await _append_chunk(central, WorkerLease(worker.id, chunk.job_id, chunk.epoch), chunk) for chunk in chunks]
    return json_response(ChunkResults(results))


async def _append_chunk(central: ApiContext, lease: WorkerLease, chunk: LogChunk) -> ChunkResult:
    size, refused = 0, ""
    try:
        size = await central.task_logs.append(lease, chunk.offset, chunk.text.encode)
        metrics.count("remote.log.bytes", max(0, size - chunk.offset))
    except WrongOffset as step:
        size = max(0, step.size)
    except (LedgerError, Unstorable) as error:
        refused = str(error)
    return ChunkResult(chunk.job_id, chunk.epoch, size, refused)


async def append(central: ApiContext, request: Request, lease: WorkerLease) -> Response:
    offset, body = _offset(request), await _log_body(request, LOG_BYTES)
    size = await _in_step(central.task_logs.append(lease, offset, body))
    metrics.count("remote.log.bytes", max(0, size - offset))
    return json_response(LogAppended(size))


def _offset(request: Request) -> int:
    try:
        offset = int(request.query_params["offset"])
        if not 0 <= offset < LONGEST_LOG:
            raise ValueError
    except (KeyError, ValueError):
        raise Refusal(ProblemCode.INVALID, "a log chunk needs ?offset= with a number of bytes, 0 or more") from None
    return offset


async def _log_body(request: Request, most: int) -> Callable[[], bytes]:
    """Read the body; return a function that unpacks it, to be called in a thread."""
    body = await read_body(request, LOG_PACKED_BYTES)
    packed = request.headers.get("content-encoding", "") == "gzip"
    return lambda: unpack(body, most) if packed else body


async def _in_step(append: Awaitable[int]) -> int:
    try:
        return await append
    except WrongOffset as step:
        raise Refusal(
            ProblemCode.LOG_OFFSET, f"central holds {step.size} bytes of this log; continue from there", size=max(0, step.size)
        ) from None
