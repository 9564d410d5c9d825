"""Limits the cost of one job's Execution API calls for central. Every such call passes here before it is served."""

from __future__ import annotations

from functools import partial

from airflow_remote_protocol.errors import ProblemCode
from airflow_remote_protocol.execution import ENVELOPE_BYTES, explain_too_large
from starlette.requests import Request
from starlette.responses import Response

from airflow_remote_provider.api.admission.bodies import receive_body
from airflow_remote_provider.api.admission.holdings import Content, Turn, holding_of
from airflow_remote_provider.api.gateway.rules import Meaning
from airflow_remote_provider.api.problems import Refusal
from airflow_remote_provider.api.worker_v1.context import ApiContext
from airflow_remote_provider.api.worker_v1.execution import match_rule, serve_call
from airflow_remote_provider.ledger import breaker, written
from airflow_remote_provider.ledger.fence import WorkerLease

READS = frozenset({"GET", "HEAD"})
ALWAYS = frozenset({Meaning.START, Meaning.CONCLUDE})
"""A start or end of a task is not refused for earlier writes: the task would never end. Airflow accepts each of them once."""


async def serve_within_bounds(central: ApiContext, request: Request, lease: WorkerLease) -> Response:
    """Serve the call, within the limits of the job and its worker for writes, held memory, and failures.

    Raises:
        TooMuchWritten: the job has reached its limit of writes.
        Refusal: `busy`: too many of its calls failed, or its worker holds too much.
    """
    most = central.settings.gateway_body_bytes
    size = await receive_body(request, most, admit=partial(central.holdings.check_pace, lease.worker_id))
    match, reads = await match_rule(central, request, lease), request.method in READS
    if not (reads or match.meaning in ALWAYS):
        # Count only for an open lease. The call itself gets this answer from the cache.
        await central.lease_cache.get_subject(lease)
        await central.writes.take(lease, size)
        is_first = await central.started_jobs.note_write(lease, store=partial(central.pool.jobs.call, written.note))
        if is_first and central.registry.early_failures(lease.worker_id):
            await central.pool.jobs.call(breaker.note_begun, lease.worker_id)
    async with central.holdings.turn(lease.worker_id, match.decoded, body_bytes=size, reads=reads) as turn:
        with central.failures.call(lease.job_id) as failed:
            response = await serve_call(central, request, lease, match)
            if response.status_code >= 500:
                failed()
        _hold(request, response, turn, reads=reads, most=most)
    return response


def _hold(request: Request, response: Response, turn: Turn, *, reads: bool, most: int) -> None:
    """Hold the answer in place of the body. The answer to a write is small, and is never refused since the write is done.

    Raises:
        Refusal: `too-large`; `busy`: the worker has not received earlier answers yet.
    """
    holding = holding_of(request)
    holding.give_back()
    turn.answer_bytes = len(response.body)
    if reads:
        if turn.answer_bytes > most + ENVELOPE_BYTES:
            raise Refusal(ProblemCode.TOO_LARGE, explain_too_large("Airflow's answer", size=turn.answer_bytes, most=most))
        holding.take(turn.answer_bytes, Content.ANSWER)
