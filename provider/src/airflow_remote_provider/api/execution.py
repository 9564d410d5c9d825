"""The gateway's route: one Execution API call of a job, checked, passed on, and noted where it means something to us."""

from __future__ import annotations

import re
from functools import partial

from airflow_remote_protocol.errors import ProblemCode
from starlette.requests import Request
from starlette.responses import Response

from airflow_remote_provider.api.bodies import read_body
from airflow_remote_provider.api.central import Central
from airflow_remote_provider.api.problems import Refusal
from airflow_remote_provider.ledger import leases
from airflow_remote_provider.ledger.leases import Lease

RUN = re.compile(r"task-instances/([0-9a-f-]{36})/run")
STATE = re.compile(r"task-instances/([0-9a-f-]{36})/state")
MOVED_ON = frozenset({404, 409, 410})
"""What Airflow says to a repeated `state` when the first one has let the scheduler go on: no such id any more, or not running."""
SECRET = re.compile(r"(variables|connections)/.")


async def execution(central: Central, request: Request, lease: Lease) -> Response:
    """The gateway. Two calls mean something to us besides: `run` accepts the offer, `state` concludes the task."""
    path = _raw_path(request)
    body = await read_body(request, central.settings.gateway_body_bytes)
    running = request.method == "PATCH" and RUN.fullmatch(path)
    concluding = request.method == "PATCH" and STATE.fullmatch(path)
    if running:
        # Again by the same task process it is answered as before: Airflow knows its host, user and pid.
        subject = await central.checks.anew(lease, leases.accept)
        await central.task_logs.create(subject.log_path)
    elif concluding:
        subject = await central.checks.ending(lease, partial(leases.conclude, done=True, body=body))
    else:
        subject = await central.checks.lately(lease)
    if concluding and subject.passed_on:
        return Response(status_code=204)  # said again to Airflow it would be the word of the task's next job
    query, headers = request.scope.get("query_string", b""), request.scope["headers"]
    try:
        await central.rights.check(lease, subject, request, path, body)
        passed = await central.gateway.pass_on(request.method, path, query, headers, body, subject)
        if passed.status == 404 and request.method == "GET" and SECRET.match(path):
            # Airflow also says "not found" when its database could not be asked, and the task would believe it: only what is said
            # after the database has been heard counts.
            subject = await central.checks.anew(lease, leases.check)
            passed = await central.gateway.pass_on(request.method, path, query, headers, body, subject)
    except Exception:
        if concluding and not subject.concluded:
            await central.pool.jobs.call(leases.conclude, lease, done=False)
        raise
    if concluding and passed.status >= 400:
        if not subject.concluded:
            await central.pool.jobs.call(leases.conclude, lease, done=False)
        elif passed.status in MOVED_ON:
            return Response(status_code=204)
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
