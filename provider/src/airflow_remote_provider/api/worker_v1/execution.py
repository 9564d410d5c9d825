"""The gateway's route: checks one Execution API call of a job, passes it on, and acts on calls with a meaning for the gateway.

The matched rule has the meaning of a call (:class:`.rules.Meaning`); the text of the path is not used here.
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
"""States in which a task waits; :mod:`.deferral` reads the method and arguments with which it resumes."""
MOVED_ON = frozenset({404, 409, 410})
"""Airflow's answers to a repeated `state` after the first one let the scheduler go on: unknown id, or not running."""
RESUMED = FAIL.encode()
"""Part of Airflow's answer to `run` of any task that resumes from a wait that the gateway stored."""
NO_HOST = ""
"""The host name of every remote task. Airflow's UI fetches logs from `http://<host name>:8793`, with a signed token. It must
never call an address that a worker chose, and it never calls an empty one."""


async def match_rule(central: ApiContext, request: Request, lease: WorkerLease) -> Match:
    """Return the rule of a call. Its path is parsed nowhere else.

    Raises:
        Refusal: `invalid`; there is no rule.
        LedgerError: the lease is over.
    """
    path = _raw_path(request)
    try:
        return rules.find(request.method, path)
    except NotAllowed as error:
        await central.lease_cache.get_subject(lease)  # so that a denial is only recorded for the caller's own job
        raise await central.rights.refusal(lease, method=request.method, path=path, error=error) from None


async def serve_call(central: ApiContext, request: Request, lease: WorkerLease, match: Match) -> Response:
    """Serve one call. Four kinds need more than passing on: two starts, the task's state, and a secret that was not found."""
    body = await read_body(request, central.settings.gateway_body_bytes)
    await central.rights.check_values(match, request, body)
    call = _Call(central, request, lease, match)
    if match.meaning is Meaning.START:
        return await _start(call, body)
    if match.meaning is Meaning.CONCLUDE:
        return await _conclude(call, body)
    subject = await central.lease_cache.get_subject(lease)
    await central.rights.check(lease, subject, match=match, request=request, body=body)
    passed = await call.pass_on(body, subject)
    if match.meaning is Meaning.READ_SECRET and passed.status == 404 and request.method == "GET":
        # Airflow also answers "not found" when its database is unavailable, and the task would believe it. So only an answer
        # after a successful query of the database counts.
        passed = await call.pass_on(body, await central.lease_cache.confirm(lease, fence.check))
    if match.meaning is Meaning.START_CALLBACK and _may_start_callback(passed):
        return Response(status_code=204)
    return _response(passed)


class _Call:
    """One call: its request, its lease and the rule that it matched."""

    def __init__(self, central: ApiContext, request: Request, lease: WorkerLease, match: Match) -> None:
        self.central = central
        self.request = request
        self.lease = lease
        self.match = match

    async def check(self, subject: Subject, body: bytes) -> None:
        await self.central.rights.check(self.lease, subject, match=self.match, request=self.request, body=body)

    async def pass_on(self, body: bytes, subject: Subject) -> Passed:
        query, headers = self.request.scope.get("query_string", b""), self.request.scope["headers"]
        return await self.central.gateway.pass_on(self.match, query=query, headers=headers, body=body, subject=subject)

    async def ledger(self, verb: Any, *arguments: Any, **options: Any) -> Any:
        return await self.central.pool.jobs.call(verb, *arguments, **options)

    async def object_of(self, body: bytes) -> dict[str, Any]:
        """Return the body as a JSON object. It is encoded again for Airflow, which then reads the same values as the rules.

        Raises:
            Refusal: `invalid`; it is not a JSON object.
        """
        try:
            said = await _run_off_loop(json.loads, body, size=len(body))
        except (ValueError, RecursionError):
            said = None
        if not isinstance(said, dict):
            raise await self.refusal(NotAllowed("its body is not a JSON object"))
        return said

    async def refusal(self, error: NotAllowed) -> Refusal:
        """Record that this call is never allowed; return its refusal.

        Raises:
            LedgerError: the job is not the caller's own, or the lease is over.
        """
        await self.central.lease_cache.get_subject(self.lease)
        return await self.central.rights.refusal(self.lease, method=self.match.method, path=self.match.raw, error=error)


# The start


async def _start(call: _Call, body: bytes) -> Response:
    """Accept the offer and pass the task's start on. A resumed task gets its method and arguments in the answer."""
    said = await call.object_of(body)
    # A repeat by the same task process gets the same answer: Airflow knows its user and pid.
    subject = await call.central.lease_cache.confirm(call.lease, leases.accept)
    call.central.started_jobs.note_start(call.lease)
    await call.central.task_logs.create(subject.log_path)
    await call.check(subject, body)
    passed = await call.pass_on(_encoded(said | {"hostname": NO_HOST}), subject)
    if passed.status == 200 and RESUMED in passed.body:
        passed = await _resumed(call, passed, subject)
    return _response(passed)


async def _resumed(call: _Call, passed: Passed, subject: Subject) -> Passed:
    """Replace the placeholder in Airflow's answer with the method and arguments of the resumed task."""
    wait = await call.ledger(deferrals.resumption, subject.id)
    if wait is None:
        return passed
    answer = deferral.resumed_answer(passed.body, method=wait.next_method, next_kwargs=wait.next_kwargs, event=wait.event)
    return passed if answer is None else Passed(passed.status, passed.headers, answer)


def _may_start_callback(passed: Passed) -> bool:
    """Return whether a callback may run although Airflow did not start it with this call.

    Airflow before 3.4 has no such call. Later versions accept it once; a worker that lost the answer repeats it, and only the
    worker that has the job can.
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
    """Pass the task's state on. It ends the job, or begins a wait."""
    said = compat.state_for_this_airflow(await call.object_of(body))
    if said.get("state") == "up_for_reschedule":
        call.central.started_jobs.note_reschedule(call.lease)
    wait: NewWait | None = None
    if said.get("state") in WAITS:
        try:
            asked = await _run_off_loop(deferral.read, said, size=len(body))
        except NotAllowed as error:
            raise await call.refusal(error) from None
        at_site, said = await _place_trigger(call, asked, state=said["state"], body=body)
        wait = NewWait(asked.next_method, asked.next_kwargs, asked.kwargs, asked.classpath if at_site else None)
    passed_body = await _run_off_loop(_encoded, said, size=len(body))
    subject = await call.central.lease_cache.end_lease(call.lease, partial(_note_end, body=body, wait=wait))
    if subject.passed_on:
        return Response(status_code=204)  # repeated to Airflow, it would become the state of the task's next job
    try:
        await call.check(subject, body)
        passed = await call.pass_on(passed_body, subject)
    except Exception:  # Airflow did not get the state: the job goes on, and the task may repeat the call
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
    """Store the end of the task's work, and its wait, before either is passed on to Airflow."""
    subject = leases.conclude(session, lease, done=True, body=body)
    if wait is not None and not subject.concluded:
        deferrals.note(session, lease.job_id, wait)
    return subject


async def _place_trigger(call: _Call, wait: deferral.Wait, *, state: str, body: bytes) -> tuple[bool, dict[str, Any]]:
    """Return whether a wait's trigger runs at a site, and the body that Airflow gets.

    A trigger runs at a site unless it only waits for a moment or a policy places it on central. A repeat of the call gets the
    same place as the first one, even if the policy has changed.
    """
    if wait.classpath is None:
        return False, deferral.for_airflow(wait, state)
    if (moment := wait.moment) is not None:
        return False, deferral.for_triggerer(
            wait, state, classpath=deferral.DATE_TIME_TRIGGER, kwargs=deferral.date_time_arguments(moment)
        )
    on_central, is_repeat = await call.ledger(queue_policy.runs_on_central, call.lease, classpath=wait.classpath, body=body)
    if not on_central:
        return True, deferral.for_airflow(wait, state)
    try:
        arguments, names = deferral.plain_arguments(wait), deferral.connections_of(wait)
    except NotAllowed as error:
        raise await call.refusal(error) from None
    if not is_repeat:
        await call.central.rights.require_grants(call.lease, [Ask(GrantKind.CONNECTIONS, (name,)) for name in names])
    return False, deferral.for_code_on_central(wait, state, arguments)


async def _run_off_loop(work: Callable[[Any], T], value: Any, *, size: int) -> T:
    """Run *work* on the content of a body of *size* bytes; in a thread if it would block the event loop."""
    return await asyncio.to_thread(work, value) if size > CHECKED_AT_ONCE else work(value)


def _encoded(said: Mapping[str, Any]) -> bytes:
    return json.dumps(said).encode()


def _response(passed: Passed) -> Response:
    return Response(passed.body, passed.status, passed.headers)


def _raw_path(request: Request) -> str:
    """Return the Execution API's path as received, still percent-encoded, since an XCom key may have a slash.

    Raises:
        Refusal: `invalid`; the part before it is itself percent-encoded, which no worker does.
    """
    raw: bytes = request.scope.get("raw_path") or request.url.path.encode()
    _, found, path = raw.decode("ascii", "replace").partition(f"/jobs/{request.path_params['job_id']}/execution/")
    if not found:
        raise Refusal(ProblemCode.INVALID, "the part of the path before the Execution API's own path must not be percent-encoded")
    return path.split("?", 1)[0]
