"""What one job's calls of the Execution API may cost central. Everything that is allowed to it passes here first."""

from __future__ import annotations

from functools import partial

from airflow_remote_protocol.errors import ProblemCode
from airflow_remote_protocol.execution import ENVELOPE_BYTES, too_long
from starlette.requests import Request
from starlette.responses import Response

from airflow_remote_provider.api.admission.bodies import receive_body
from airflow_remote_provider.api.admission.holdings import Content, Turn, holding_of
from airflow_remote_provider.api.gateway.rules import Meaning
from airflow_remote_provider.api.problems import Refusal
from airflow_remote_provider.api.worker_v1.context import ApiContext
from airflow_remote_provider.api.worker_v1.execution import execution, matched
from airflow_remote_provider.ledger import breaker, written
from airflow_remote_provider.ledger.fence import WorkerLease

READS = frozenset({"GET", "HEAD"})
ALWAYS = frozenset({Meaning.START, Meaning.CONCLUDE})
"""What begins and ends a task is not refused for what it wrote before: it would never end. Airflow takes each of them once."""


async def within_bounds(central: ApiContext, request: Request, lease: WorkerLease) -> Response:
    """Make the call, within what the job, and its worker, may write, hold in memory, and break.

    Raises:
        TooMuchWritten: the job has written as much as one may.
        Refusal: `busy`: too many of its calls failed, or its worker holds too much.
    """
    most = central.settings.gateway_body_bytes
    size = await receive_body(request, most, admit=partial(central.holdings.insist_on_pace, lease.worker_id))
    match, reads = await matched(central, request, lease), request.method in READS
    if not (reads or match.meaning in ALWAYS):
        # Only for a lease that is open is anything counted. The call itself finds this answer in memory.
        await central.checks.lately(lease)
        await central.writes.take(lease, size)
        is_first = await central.beginnings.note_write(lease, store=partial(central.pool.jobs.call, written.note))
        if is_first and central.registry.early_failures(lease.worker_id):
            await central.pool.jobs.call(breaker.note_begun, lease.worker_id)
    async with central.holdings.turn(lease.worker_id, match.decoded, body_bytes=size, reads=reads) as turn:
        with central.failures.call(lease.job_id) as failed:
            response = await execution(central, request, lease, match)
            if response.status_code >= 500:
                failed()
        _hold(request, response, turn, reads=reads, most=most)
    return response


def _hold(request: Request, response: Response, turn: Turn, *, reads: bool, most: int) -> None:
    """Hold the answer in the place of the body. What a write answers is small, and has been done: it is never withheld.

    Raises:
        Refusal: `too-large`; `busy`: the worker has not taken earlier answers yet.
    """
    holding = holding_of(request)
    holding.give_back()
    turn.answer_bytes = len(response.body)
    if reads:
        if turn.answer_bytes > most + ENVELOPE_BYTES:
            raise Refusal(ProblemCode.TOO_LARGE, too_long("Airflow's answer", turn.answer_bytes, most))
        holding.take(turn.answer_bytes, Content.ANSWER)
