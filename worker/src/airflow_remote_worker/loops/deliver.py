"""Delivers outboxes: what tasks wrote while central was out of reach, each job's in its order, until it has ended.

A reply that was lost is no matter: the call is made again, and only calls that bear that may be spooled (`shim/writes.py`). What
central will not have can't be told to the task any more; it is said in the task's log, once nobody else writes that, and the task
fails (:mod:`~airflow_remote_worker.lost_writes`).
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
from airflow_remote_worker.lost_writes import collides, failed_instead, is_state

log = logging.getLogger(__name__)

SERVER_ERRORS_FOR_S = 600.0
"""How long an error of the Execution API itself (5xx) is tried again. Its database may be away for minutes; a write that breaks
it every time must not hold the job's report for ever."""


CONFLICTS_FOR_S = 30.0
"""How long a conflict (409) is tried again: a copy of the same write whose answer we did not wait for may be under way there, and
the database takes one of the two. Once that is done, the next is taken."""


class DeliverLoop(PerJob):
    """*supersede* is told when a job is not ours any more."""

    verb = "deliver"

    def __init__(self, link: Link, clock: Clock, supersede: Callable[[Lease], None]) -> None:
        super().__init__()
        self._link = link
        self._clock = clock
        self._supersede = supersede

    async def _attend(self, job: Job) -> None:
        backoff = Backoff(self._clock, floor_s=0.5, ceiling_s=30)
        while not job.superseded.is_set():
            # Asked before looking: what is there when a job has ended is all there will ever be.
            over = job.ended.is_set()
            try:
                call = await self._next(job)
                if call is not None:
                    await self._send(job, call)
                elif over:
                    if job.outbox.waits:
                        log.warning("job %s: its last write was cut off with its shim, before the task heard of it", job.lease)
                    break
                else:
                    await _first_of(job.outbox.changed, job.ended)
            except OSError as error:
                log.error("job %s: its outbox can't be read or marked: %s; trying again", job.lease, error)
                await self._clock.sleep(backoff.next_s())
            else:
                backoff.reset()
        await job.ended.wait()
        self._tell_reader(job)
        job.delivered.set()

    async def _next(self, job: Job) -> frames.Call | None:
        try:
            return job.outbox.next()
        except Damaged as error:
            line = f"{error}: what the task wrote there while central was out of reach is lost"
            log.error("job %s: %s", job.lease, line)
            job.outbox.refuse(line, is_lost=True)
            await job.outbox.give_up()
            return None

    async def _send(self, job: Job, call: frames.Call) -> None:
        """Until central has heard the call, or has said that it never will."""
        attempts = Attempts(self._link, self._clock)
        failing_since: float | None = None
        if (lost_at := job.outbox.lost_at) is not None:
            call = failed_instead(call, lost_at=lost_at)
        while not job.superseded.is_set():
            try:
                executed = await self._link.execution(job.lease, call.method, call.path, call.headers, call.body)
            except Superseded as error:
                log.warning("job %s: what it wrote is dropped, the job is not ours any more (%s)", job.lease, error)
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
                    await self._refuse(job, call, f"{executed.status} {_told(executed.body)}")
                    return
                await self._clock.sleep(attempts.next_s())

    async def _refuse(self, job: Job, call: frames.Call, answer: str) -> None:
        line = f"Central refused what the task had written while central was out of reach: {call.method} {call.path}: {answer}."
        if is_state(call):
            line += " The task was told that its state was taken."
        else:
            line += " The task was told that it was written. The value is lost, so the task fails."
        log.error("job %s: %s", job.lease, line)
        job.outbox.refuse(line, is_lost=not is_state(call))
        await job.outbox.acknowledge()

    def _tell_reader(self, job: Job) -> None:
        """Before the log's end is shipped; nobody else writes it any more."""
        if job.superseded.is_set():
            return
        try:
            for line in job.outbox.refused():
                append_line(job.dir.task_log, line, at=self._clock.wall())
            job.outbox.forget_refused()
        except OSError as error:
            log.error("job %s: its log can't be told what central refused: %s", job.lease, error)


def _patience_s(call: frames.Call, status: int) -> float:
    """Return how long a call is repeated that is answered like this."""
    if status >= 500:
        return SERVER_ERRORS_FOR_S
    return CONFLICTS_FOR_S if collides(call, status) else 0.0


def _told(body: bytes) -> str:
    """Return what the Execution API says of a refusal, without what was written: that may be nobody's to read in a log."""
    try:
        detail = msgspec.json.decode(body).get("detail")
    except (msgspec.DecodeError, AttributeError):
        return ""
    if isinstance(detail, list):  # of a validation: each with the input that was wrong
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
