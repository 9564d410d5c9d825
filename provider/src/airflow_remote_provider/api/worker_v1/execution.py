"""The gateway's route: one Execution API call of a job, checked, passed on, and acted on where it means something to us.

The matched rule says what a call is (:class:`.rules.Meaning`); nothing here looks at the path's text.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeVar

from airflow_remote_protocol.errors import ProblemCode
from sqlalchemy.orm import Session
from starlette.requests import Request
from starlette.responses import Response

from airflow_remote_provider import compat
from airflow_remote_provider.api.admission.bodies import read_body
from airflow_remote_provider.api.gateway import rules
from airflow_remote_provider.api.gateway.gateway import Passed
from airflow_remote_provider.api.gateway.rights import CHECKED_AT_ONCE
from airflow_remote_provider.api.gateway.rules import Match, Meaning, NotAllowed
from airflow_remote_provider.api.problems import Refusal
from airflow_remote_provider.api.worker_v1 import deferral
from airflow_remote_provider.api.worker_v1.context import ApiContext
from airflow_remote_provider.definitions.grants import Ask, GrantKind
from airflow_remote_provider.ledger import deferrals, fence, leases, queue_policy
from airflow_remote_provider.ledger.deferrals import NewWait
from airflow_remote_provider.ledger.fence import Subject, WorkerLease
from airflow_remote_provider.placeholder_names import FAIL

T = TypeVar("T")

WAITS = ("deferred", "awaiting_input")
"""States in which a task waits; with what it goes on is read by :mod:`.deferral`."""
MOVED_ON = frozenset({404, 409, 410})
"""What Airflow says to a repeated `state` when the first one has let the scheduler go on: no such id any more, or not running."""
RESUMED = FAIL.encode()
"""In Airflow's answer to `run` of any task that did wait for something of ours."""
NO_HOST = ""
"""The host name of every remote task. Airflow's UI fetches logs from `http://<host name>:8793`, with a signed token; an address
that a worker chose must never be called, and an empty one never is."""


async def matched(central: ApiContext, request: Request, lease: WorkerLease) -> Match:
    """Return the rule of a call: the one reading of its path.

    Raises:
        Refusal: `invalid`; there is none.
        LedgerError: the lease is over.
    """
    path = _raw_path(request)
    try:
        return rules.find(request.method, path)
    except NotAllowed as error:
        await central.checks.lately(lease)  # a denial is recorded for the caller's own job only
        raise await central.rights.refusal(lease, request.method, path, error) from None


async def execution(central: ApiContext, request: Request, lease: WorkerLease, match: Match) -> Response:
    """Serve one call. Four mean something to us besides: two starts, the task's state, and a secret that was not found."""
    body = await read_body(request, central.settings.gateway_body_bytes)
    await central.rights.check_values(match, request, body)
    call = _Call(central, request, lease, match)
    if match.meaning is Meaning.START:
        return await _start(call, body)
    if match.meaning is Meaning.CONCLUDE:
        return await _conclude(call, body)
    subject = await central.checks.lately(lease)
    await central.rights.check(lease, subject, match, request, body)
    passed = await call.pass_on(body, subject)
    if match.meaning is Meaning.READ_SECRET and passed.status == 404 and request.method == "GET":
        # Airflow also says "not found" when its database could not be asked, and the task would believe it: only what is said
        # after the database has answered counts.
        passed = await call.pass_on(body, await central.checks.anew(lease, fence.check))
    if match.meaning is Meaning.START_CALLBACK and _may_start_callback(passed):
        return Response(status_code=204)
    return _response(passed)


class _Call:
    """One call on its way: who makes it, and the rule that it matched."""

    def __init__(self, central: ApiContext, request: Request, lease: WorkerLease, match: Match) -> None:
        self.central = central
        self.request = request
        self.lease = lease
        self.match = match

    async def check(self, subject: Subject, body: bytes) -> None:
        await self.central.rights.check(self.lease, subject, self.match, self.request, body)

    async def pass_on(self, body: bytes, subject: Subject) -> Passed:
        query, headers = self.request.scope.get("query_string", b""), self.request.scope["headers"]
        return await self.central.gateway.pass_on(self.match, query, headers, body, subject)

    async def ledger(self, verb: Any, *arguments: Any, **options: Any) -> Any:
        return await self.central.pool.jobs.call(verb, *arguments, **options)

    async def object_of(self, body: bytes) -> dict[str, Any]:
        """Return the body as a JSON object, which is then written anew: what was judged is what Airflow reads.

        Raises:
            Refusal: `invalid`; it is none.
        """
        try:
            said = await _apart(json.loads, body, size=len(body))
        except (ValueError, RecursionError):
            said = None
        if not isinstance(said, dict):
            raise await self.refusal(NotAllowed("its body is not a JSON object"))
        return said

    async def refusal(self, error: NotAllowed) -> Refusal:
        """Record that this call is never allowed, if it is about a job of the caller's own; return its refusal.

        Raises:
            LedgerError: it is not, or the lease is over.
        """
        await self.central.checks.lately(self.lease)
        return await self.central.rights.refusal(self.lease, self.match.method, self.match.raw, error)


# The start


async def _start(call: _Call, body: bytes) -> Response:
    """The task process asks whether it may run: accepts the offer. A resumed task is told what it goes on with."""
    said = await call.object_of(body)
    # Again by the same task process it is answered as before: Airflow knows its user and pid.
    subject = await call.central.checks.anew(call.lease, leases.accept)
    call.central.beginnings.note_start(call.lease)
    await call.central.task_logs.create(subject.log_path)
    await call.check(subject, body)
    passed = await call.pass_on(_encoded(said | {"hostname": NO_HOST}), subject)
    if passed.status == 200 and RESUMED in passed.body:
        passed = await _resumed(call, passed, subject)
    return _response(passed)


async def _resumed(call: _Call, passed: Passed, subject: Subject) -> Passed:
    """Put what the task goes on with into Airflow's answer, which holds a placeholder for it."""
    wait = await call.ledger(deferrals.resumption, subject.id)
    if wait is None:
        return passed
    answer = deferral.resumed_answer(passed.body, wait.next_method, wait.next_kwargs, wait.event)
    return passed if answer is None else Passed(passed.status, passed.headers, answer)


def _may_start_callback(passed: Passed) -> bool:
    """Whether a callback may run that Airflow did not start with this call.

    Airflow before 3.4 has no such call. Since then it takes it once; a worker whose answer was lost asks again, and only the
    worker that has the job can ask.
    """
    if passed.status == 404:
        return not compat.has_callback_start()
    if passed.status != 409:
        return False
    try:
        return json.loads(passed.body)["detail"]["previous_state"] == "running"  # type: ignore[no-any-return]
    except (ValueError, TypeError, KeyError):
        return False


# The state


async def _conclude(call: _Call, body: bytes) -> Response:
    """The task tells its state, which ends the job; or that it waits, which begins a wait."""
    said = compat.state_for_this_airflow(await call.object_of(body))
    if said.get("state") == "up_for_reschedule":
        call.central.beginnings.note_reschedule(call.lease)
    wait: NewWait | None = None
    if said.get("state") in WAITS:
        try:
            told = await _apart(deferral.read, said, size=len(body))
        except NotAllowed as error:
            raise await call.refusal(error) from None
        at_site, said = await _place(call, told, said["state"], body)
        wait = NewWait(told.next_method, told.next_kwargs, told.kwargs, told.classpath if at_site else None)
    passed_body = await _apart(_encoded, said, size=len(body))
    subject = await call.central.checks.ending(call.lease, partial(_note_end, body=body, wait=wait))
    if subject.passed_on:
        return Response(status_code=204)  # said again to Airflow it would be the state of the task's next job
    try:
        await call.check(subject, body)
        passed = await call.pass_on(passed_body, subject)
    except Exception:
        if not subject.concluded:
            await call.ledger(leases.conclude, call.lease, done=False)
        raise
    if passed.status >= 400:
        if not subject.concluded:
            await call.ledger(leases.conclude, call.lease, done=False)
        elif passed.status in MOVED_ON:
            return Response(status_code=204)
    elif wait is not None and wait.classpath is not None:
        await call.ledger(deferrals.queue_trigger, call.lease.job_id)
    return _response(passed)


def _note_end(session: Session, lease: WorkerLease, *, body: bytes, wait: NewWait | None) -> Subject:
    """Note the end of the task's work, and what it waits for, before Airflow hears of either."""
    subject = leases.conclude(session, lease, done=True, body=body)
    if wait is not None and not subject.concluded:
        deferrals.note(session, lease.job_id, wait)
    return subject


async def _place(call: _Call, wait: deferral.Wait, state: str, body: bytes) -> tuple[bool, dict[str, Any]]:
    """Decide where a wait's trigger runs: at a site, unless it only waits for a moment or runs on central by policy.

    A repeat of the call stays where the first one put it, whatever has become of the policy. Return whether it runs at a site,
    and the body that Airflow gets.
    """
    if wait.classpath is None:
        return False, deferral.for_airflow(wait, state)
    if (moment := wait.moment) is not None:
        return False, deferral.for_triggerer(wait, state, deferral.DATE_TIME_TRIGGER, deferral.date_time_arguments(moment))
    on_central, is_repeat = await call.ledger(queue_policy.runs_on_central, call.lease, wait.classpath, body)
    if not on_central:
        return True, deferral.for_airflow(wait, state)
    try:
        arguments, names = deferral.plain_arguments(wait), deferral.connections_of(wait)
    except NotAllowed as error:
        raise await call.refusal(error) from None
    if not is_repeat:
        await call.central.rights.insist(call.lease, [Ask(GrantKind.CONNECTIONS, (name,)) for name in names])
    return False, deferral.for_code_on_central(wait, state, arguments)


async def _apart(work: Callable[[Any], T], value: Any, *, size: int) -> T:
    """Do *work* on what a body of *size* bytes holds: in a thread, if it would hold the event loop up."""
    return await asyncio.to_thread(work, value) if size > CHECKED_AT_ONCE else work(value)


def _encoded(said: Mapping[str, Any]) -> bytes:
    return json.dumps(said).encode()


def _response(passed: Passed) -> Response:
    return Response(passed.body, passed.status, passed.headers)


def _raw_path(request: Request) -> str:
    """Return the Execution API's path as it came, still percent-encoded: an XCom key may hold a slash.

    Raises:
        Refusal: `invalid`; what leads to it is itself encoded, which no worker does.
    """
    raw: bytes = request.scope.get("raw_path") or request.url.path.encode()
    _, found, path = raw.decode("ascii", "replace").partition(f"/jobs/{request.path_params['job_id']}/execution/")
    if not found:
        raise Refusal(ProblemCode.INVALID, "the part of the path before the Execution API's own must not be percent-encoded")
    return path.split("?", 1)[0]
