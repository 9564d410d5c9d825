"""Delivers outboxes: the writes that tasks made while central was unreachable, per job in their order.

A lost reply does no harm: the call is made again, and only calls that may be repeated are spooled (`shim/writes.py`). The task
can't be notified of a write that central refuses. The refusal goes into the task's log once no other process writes that log, and
the task fails (:mod:`~airflow_remote_worker.lost_writes`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import anyio
import msgspec

from airflow_remote_worker.clock import Backoff, Clock
from airflow_remote_worker.errors import Damaged, Refused, Superseded, Unreachable
from airflow_remote_worker.jobs.job import Job
from airflow_remote_worker.jobs.logs import append_line
from airflow_remote_worker.lease import Lease
from airflow_remote_worker.link.attempts import RETRIED, Attempts
from airflow_remote_worker.link.client import Link
from airflow_remote_worker.local import frames
from airflow_remote_worker.loops.per_job import PerJob
from airflow_remote_worker.lost_writes import is_state_report, may_collide, replace_with_failure

log = logging.getLogger(__name__)

SERVER_ERRORS_FOR_S = 600.0
"""How long a call is repeated after errors of the Execution API itself (5xx). Its database may be unavailable for minutes; a
write that fails every time must not delay the job's report for ever."""


CONFLICTS_FOR_S = 30.0
"""How long a call is repeated after a conflict (409): an earlier copy of the same write may still be in progress there, and the
database accepts one of the two. Once that is done, the repeat is accepted."""


class DeliverLoop(PerJob):
    """Delivers the outbox of each job. *supersede* is called with a lease that is no longer ours."""

    verb = "deliver"

    def __init__(self, link: Link, clock: Clock, supersede: Callable[[Lease], None]) -> None:
        super().__init__()
        self._link = link
        self._clock = clock
        self._supersede = supersede

    async def _process(self, job: Job) -> None:
        backoff = Backoff(self._clock, floor_s=0.5, ceiling_s=30)
        while not job.superseded.is_set():
            # Checked before the outbox is read: after a job's end its outbox does not grow.
            over = job.ended.is_set()
            try:
                call = await self._next(job)
                if call is not None:
                    await self._send(job, call)
                elif over:
                    if job.outbox.waits:
                        log.warning(
                            "job %s: its last write is incomplete, because its shim died; its task got no answer", job.lease
                        )
                    break
                else:
                    await _first_of(job.outbox.changed, job.ended)
            except OSError as error:
                log.error("job %s: its outbox can't be read or marked: %s; trying again", job.lease, error)
                await self._clock.sleep(backoff.next_s())
            else:
                backoff.reset()
        await job.ended.wait()
        self._log_refusals(job)
        job.delivered.set()

    async def _next(self, job: Job) -> frames.Call | None:
        try:
            return job.outbox.next()
        except Damaged as error:
            line = f"{error}: the writes that the task made while central was unreachable are lost"
            log.error("job %s: %s", job.lease, line)
            job.outbox.refuse(line, is_lost=True)
            await job.outbox.give_up()
            return None

    async def _send(self, job: Job, call: frames.Call) -> None:
        """Send the call until central has accepted it or has refused it for good."""
        attempts = Attempts(self._link, self._clock)
        failing_since: float | None = None
        if (lost_at := job.outbox.lost_at) is not None:
            call = replace_with_failure(call, lost_at=lost_at)
        while not job.superseded.is_set():
            try:
                executed = await self._link.execution(job.lease, call.method, call.path, headers=call.headers, body=call.body)
            except Superseded as error:
                log.warning("job %s: its pending writes are dropped, because its lease is over (%s)", job.lease, error)
                self._supersede(job.lease)
                job.superseded.set()
            except Refused as error:
                if error.concerns_one_request:
                    await self._refuse(job, call, str(error))
                    return
                await attempts.wait_after(error)
            except RETRIED as error:
                if isinstance(error, Unreachable):
                    failing_since = None
                await attempts.wait_after(error)
            else:
                if executed.status < 400:
                    await job.outbox.acknowledge()
                    return
                now = self._clock.monotonic()
                failing_since = now if failing_since is None else failing_since
                if now - failing_since >= _patience_s(call, executed.status):
                    await self._refuse(job, call, f"{executed.status} {_explain_refusal(executed.body)}")
                    return
                await self._clock.sleep(attempts.next_s())

    async def _refuse(self, job: Job, call: frames.Call, answer: str) -> None:
        line = f"Central refused a write that the task made while central was unreachable: {call.method} {call.path}: {answer}."
        if is_state_report(call):
            line += " The task was answered that its state was accepted."
        else:
            line += " The task was answered that it was written. The value is lost, so the task fails."
        log.error("job %s: %s", job.lease, line)
        job.outbox.refuse(line, is_lost=not is_state_report(call))
        await job.outbox.acknowledge()

    def _log_refusals(self, job: Job) -> None:
        """Append central's refusals to the task's log: before its end is shipped, and after its other writers have ended."""
        if job.superseded.is_set():
            return
        try:
            for line in job.outbox.refused():
                append_line(job.dir.task_log, line, at=self._clock.wall())
            job.outbox.delete_refused()
        except OSError as error:
            log.error("job %s: can't write central's refusals to its log: %s", job.lease, error)


def _patience_s(call: frames.Call, status: int) -> float:
    """Return for how many seconds *call* is repeated while it is answered with *status*."""
    if status >= 500:
        return SERVER_ERRORS_FOR_S
    return CONFLICTS_FOR_S if may_collide(call, status) else 0.0


def _explain_refusal(body: bytes) -> str:
    """Return the Execution API's explanation of a refusal, without the refused value, which may be confidential."""
    try:
        detail = msgspec.json.decode(body).get("detail")
    except (msgspec.DecodeError, AttributeError):
        return ""
    if isinstance(detail, list):  # validation errors, each with the invalid input
        return "; ".join(str(item.get("msg")) for item in detail if isinstance(item, dict))[:500]
    if isinstance(detail, dict):
        detail = detail.get("message") or detail.get("reason")
    return str(detail)[:500]


async def _first_of(*events: anyio.Event) -> None:
    async with anyio.create_task_group() as waiting:

        async def wait(event: anyio.Event) -> None:
            await event.wait()
            waiting.cancel_scope.cancel()

        for event in events:
            waiting.start_soon(wait, event)
