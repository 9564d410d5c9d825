"""People who speak to us themselves, with the token that Airflow's own login gave them. Its auth manager says who may what."""

from __future__ import annotations

import asyncio

from airflow_remote_protocol.errors import ProblemCode

from airflow_remote_provider import compat
from airflow_remote_provider.api.problems import Refusal


def looks_like_a_users(authorization: str | None) -> bool:
    """Say whether this is a bearer token of Airflow's shape (a JWT), not one of ours."""
    scheme, _, token = (authorization or "").partition(" ")
    return scheme.lower() == "bearer" and token.count(".") == 2


async def manager_of_workers(authorization: str) -> str:
    """Return the name of the user, who may manage workers.

    Raises:
        Refusal: `unauthorized` (no user of Airflow's), `token-refused` (one who may not).
    """
    try:
        user = await compat.user_of(authorization.partition(" ")[2].strip())
    except compat.NoSuchUser:
        text = "Airflow does not accept this token: it has expired, or is no user's; log in again"
        raise Refusal(ProblemCode.UNAUTHORIZED, text) from None
    name = str(user.get_name())
    if not await asyncio.to_thread(compat.may_manage_workers, user):  # it may ask a database, or a service elsewhere
        text = (
            f"the user {name!r} may not let workers join; that takes the right to create connections. Or use an enrolment token"
        )
        raise Refusal(ProblemCode.TOKEN_REFUSED, text)
    return name
