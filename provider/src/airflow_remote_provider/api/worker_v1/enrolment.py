"""Routes for a worker to enrol, to replace its credential and to leave."""

from __future__ import annotations

from datetime import timedelta
from functools import partial

import anyio
from airflow_remote_protocol.codec import decode, encode
from airflow_remote_protocol.errors import ProblemCode
from airflow_remote_protocol.messages import (
    Credential,
    Enrolment,
)
from airflow_remote_protocol.tokens import TokenKind
from airflow_remote_protocol.version import (
    MARKER_HEADER,
)
from starlette.requests import Request
from starlette.responses import Response

from airflow_remote_provider.api.admission.bodies import read_body
from airflow_remote_provider.api.problems import Refusal
from airflow_remote_provider.api.registry import bearer, credential_hash
from airflow_remote_provider.api.worker_v1.airflow_users import authorize_manager, is_airflow_token
from airflow_remote_provider.api.worker_v1.callers import MESSAGE_BYTES, json_response, require_version, source_of
from airflow_remote_provider.api.worker_v1.context import ApiContext
from airflow_remote_provider.ledger import credentials, rotation
from airflow_remote_provider.ledger.errors import TokenRefused
from airflow_remote_provider.ledger.workers import WorkerRecord

ENROLMENT_WINDOW_S = 5.0
"""How long the body of an enrolment may be too slow. A user waits for it, and can try again."""


ENROLMENT_WITHIN_S = 15.0
"""How long the body of an enrolment may take in all."""


async def enrol(central: ApiContext, request: Request) -> Response:
    source, authorization = source_of(request), request.headers.get("authorization")
    central.failed_enrolments.check_attempts(source)
    certificate = central.certificates.read_subject(request)
    name = "unnamed"  # without a valid token the body with the name is not read
    try:
        require_version(request.headers.get(MARKER_HEADER, ""))
        async with central.enrolments.place():
            central.failed_enrolments.check_attempts(source)  # others may have failed while this call waited
            # Before the body is read, so that a caller that may not enrol can't occupy memory.
            if is_airflow_token(authorization):
                user = await authorize_manager(authorization or "")
                verb = partial(credentials.enrol_by_user, by=user)
            else:
                token = bearer(authorization, TokenKind.ENROLMENT)
                await central.pool.workers.call(credentials.check_token, token, source=source)
                verb = partial(credentials.enrol, token=token, source=source)
        asked = decode(Enrolment, await _enrolment_body(request))
        name = asked.name
        enrolled = await central.pool.workers.call(
            lambda session: verb(session, request=asked, life=credential_life(central), certificate=certificate)
        )
    except (Refusal, TokenRefused) as error:
        if error.code in (ProblemCode.UNAUTHORIZED, ProblemCode.TOKEN_REFUSED):
            central.failed_enrolments.note_failure(source)
        if error.code is ProblemCode.TOKEN_REFUSED:
            await central.pool.workers.call(credentials.record_refusal, source=source, name=name, why=str(error))
        raise
    return Response(encode(enrolled), 201, media_type="application/json")


async def _enrolment_body(request: Request) -> bytes:
    """Raises: Refusal: `too-large`, `too-slow`."""
    with anyio.move_on_after(ENROLMENT_WITHIN_S):
        return await read_body(request, MESSAGE_BYTES, window_s=ENROLMENT_WINDOW_S)
    raise Refusal(ProblemCode.TOO_SLOW, f"the enrolment was not sent within {ENROLMENT_WITHIN_S:g} s; try again")


async def replace_credential(central: ApiContext, request: Request, worker: WorkerRecord) -> Response:
    presented = credential_hash(request.headers.get("authorization"))
    made, record = await central.pool.workers.call(rotation.issue, worker.id, presented, life=credential_life(central))
    central.registry.remember(record)
    return json_response(Credential(made, credential_life(central).total_seconds()))


def credential_life(central: ApiContext) -> timedelta:
    return timedelta(days=central.settings.credential_days)


async def leave(central: ApiContext, _request: Request, worker: WorkerRecord) -> Response:
    await central.pool.workers.call(credentials.leave, worker.id)
    await central.registry.catch_up()
    return Response(status_code=204)
