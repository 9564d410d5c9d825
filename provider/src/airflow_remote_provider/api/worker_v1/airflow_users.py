"""Authorizes users who enrol workers with a token of Airflow's own login. Airflow's auth manager decides what they may do."""

from __future__ import annotations

import asyncio

from airflow_remote_protocol.errors import ProblemCode

from airflow_remote_provider import compat
from airflow_remote_provider.api.problems import Refusal


def is_airflow_token(authorization: str | None) -> bool:
    """Return whether this is a bearer token in Airflow's format (a JWT) rather than one of ours."""
    scheme, _, token = (authorization or "").partition(" ")
    return scheme.lower() == "bearer" and token.count(".") == 2


async def authorize_manager(authorization: str) -> str:
    """Check that the token's user may manage workers; return the user's name.

    Raises:
        Refusal: `unauthorized` (not a user of Airflow), `token-refused` (may not manage workers).
    """
    try:
        user = await compat.user_of(authorization.partition(" ")[2].strip())
    except compat.NoSuchUser:
        text = "Airflow does not accept this token: it has expired or belongs to no user; log in again"
        raise Refusal(ProblemCode.UNAUTHORIZED, text) from None
    name = str(user.get_name())
    if not await asyncio.to_thread(compat.may_manage_workers, user):  # it may ask a database, or a service elsewhere
        text = f"the user {name!r} may not enrol workers; this requires the right to create connections, or an enrolment token"
        raise Refusal(ProblemCode.TOKEN_REFUSED, text)
    return name
