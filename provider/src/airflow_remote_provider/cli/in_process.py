"""Central's REST API in this process, for users who have access to Airflow's database (ADR 0039)."""

from __future__ import annotations

import asyncio
import getpass
from functools import cache

import httpx
from sqlalchemy.exc import SQLAlchemyError

from airflow_remote_provider.api.ui_v1.app import LocalApi
from airflow_remote_provider.cli.client import Client
from airflow_remote_provider.cli.words import CentralUnavailable
from airflow_remote_provider.faults import diagnose

NAME = "the Remote Executor in this process"
NO_HOST = "http://central.invalid"
"""httpx takes no address without a host; nothing resolves this one (RFC 2606)."""


def connect() -> Client:
    """Return a client that calls the API as the user of the operating system."""
    transport = InProcess(_api(os_user()))
    return Client(httpx.Client(base_url=NO_HOST, transport=transport, trust_env=False), NAME)


@cache
def _api(user: str) -> LocalApi:
    """Return the API, which adds a route when it is first called; a process that calls it often adds each once."""
    return LocalApi(user)


class InProcess(httpx.BaseTransport):
    """Calls an ASGI app, synchronously; the app's exceptions reach the caller.

    Each request has an event loop of its own. `asyncio.run` would hold back Ctrl-C until the request has ended.
    """

    def __init__(self, app: LocalApi) -> None:
        self._app = httpx.ASGITransport(app)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Return the app's response.

        Raises:
            CentralUnavailable: the database or a file can't be used; the text is the same as in central's log.
        """
        loop = asyncio.new_event_loop()
        try:
            return loop.run_until_complete(self._response(request))
        except (SQLAlchemyError, OSError) as error:
            raise CentralUnavailable(str(diagnose(error))) from None
        finally:
            loop.close()

    async def _response(self, request: httpx.Request) -> httpx.Response:
        response = await self._app.handle_async_request(request)
        return httpx.Response(response.status_code, headers=response.headers, content=await response.aread())


def os_user() -> str:
    """Return the name of the user who runs this process, for the audit log."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"
