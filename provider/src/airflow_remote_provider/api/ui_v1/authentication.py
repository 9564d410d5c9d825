"""Identifies the user of Airflow that makes a request. Only the API server imports it: it loads Airflow's own API (0.3 s)."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Depends, HTTPException, Request

from airflow_remote_provider import compat
from airflow_remote_provider.api.ui_v1.caller import AirflowUser, Forbidden
from airflow_remote_provider.api.ui_v1.origins import may_act
from airflow_remote_provider.ledger.presentable import presentable


async def authenticate(request: Request, user: Annotated[Any, Depends(compat.user_of_request())]) -> None:
    """Put the caller into the request's state, where :func:`.caller.get_caller` takes it from.

    Raises:
        HTTPException: there is no such user, or the URL contains a zero byte.
        Forbidden: a page of another site makes this request.
    """
    if "\0" in request.url.path or b"%00" in request.scope["query_string"]:
        raise HTTPException(422, "the URL contains a zero byte, which no name has")  # Postgres refuses it in a text
    if not may_act(request):
        raise Forbidden(
            "this request is authenticated by Airflow's cookie, and its origin "
            f"({presentable(request.headers.get('origin', 'unknown'), longest=100)}) is not this site; "
            "only pages of Airflow itself may make changes with the cookie. Programs: send a token, Authorization: Bearer …. "
            "Behind a proxy that changes the Host header: set [api] base_url to the URL that browsers use"
        )
    state = request.app.state
    request.state.remote_caller = AirflowUser(str(user.get_name()), state.pool, user, state.scopes)
