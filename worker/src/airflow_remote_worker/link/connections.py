"""The worker's connections to central: their route and age, and when they are replaced.

Requests are in :mod:`.client`, the settings of the route in :mod:`.network`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import logging
import ssl
import sys
from collections.abc import AsyncIterator

import anyio
import httpx

from airflow_remote_worker import __version__
from airflow_remote_worker.clock import Clock
from airflow_remote_worker.config import ConfigError
from airflow_remote_worker.errors import Refused
from airflow_remote_worker.link.network import Network, Route, keepalive_options

log = logging.getLogger(__name__)

CONNECTION_AGE_S = 15 * 60
"""After this a new pool replaces the old one, so that load balancers can rebalance and DNS is resolved again."""
CHECK_FILES_EVERY_S = 60.0
"""How often certificate and password files are checked for changes. After a failed connection they are checked at once."""


class _Pool:
    """An HTTP client of limited age; closed when it is old and its last request has ended."""

    def __init__(self, client: httpx.AsyncClient, created_at: float) -> None:
        self.client = client
        self.created_at = created_at
        self.checked_at = created_at
        self.requests = 0


class Connections:
    """One pool at a time, with the route of *network*.

    Raises:
        Refused, ConfigError: the settings of *network* can't be used.
    """

    def __init__(self, network: Network, clock: Clock, transport: httpx.AsyncBaseTransport | None = None) -> None:
        """*transport*: replaces the network in tests."""
        self.route = network.route() if transport is None else Route(None, None, None, ())
        self._network = network
        self._clock = clock
        self._transport = transport
        self._pool: _Pool | None = None

    @contextlib.asynccontextmanager
    async def client(self) -> AsyncIterator[httpx.AsyncClient]:
        """Yield the client of the present pool."""
        now = self._clock.monotonic()
        pool = self._pool
        changed = False
        if pool and now - pool.checked_at > CHECK_FILES_EVERY_S:
            pool.checked_at = now
            changed = self._reload_files()
        if pool is None or changed or now - pool.created_at > CONNECTION_AGE_S:
            old, pool = pool, _Pool(self._make_client(), now)
            self._pool = pool
            if old and old.requests == 0:
                await old.client.aclose()
        pool.requests += 1
        try:
            yield pool.client
        finally:
            pool.requests -= 1
            if pool is not self._pool and pool.requests == 0:
                with anyio.CancelScope(shield=True):
                    await pool.client.aclose()

    async def close(self) -> None:
        pool, self._pool = self._pool, None
        if pool:
            await pool.client.aclose()

    def recheck_files(self) -> None:
        """Check before the next request whether a certificate or password file has changed: it may explain a failure."""
        if self._pool:
            self._pool.checked_at = float("-inf")

    def _reload_files(self) -> bool:
        """Read changed certificate and password files; return whether the route is new. A broken file is logged once."""
        stamp = self._network.stamp()
        if self._transport or stamp == self.route.stamp:
            return False
        try:
            self.route = self._network.route()
        except (Refused, ConfigError) as error:
            log.warning("%s; its previous content stays in use", error)
            self.route = dataclasses.replace(self.route, stamp=stamp)
            return False
        log.info("certificate or proxy password files have changed on disk; new connections use them")
        return True

    def _make_client(self) -> httpx.AsyncClient:
        if importlib.util.find_spec("sniffio") is None:
            # httpcore tries to import it several times for each request; each failure would search the whole module path.
            sys.modules.setdefault("sniffio", None)  # type: ignore[arg-type]  # Python's marker for a missing module
        proxy = self.route.proxy
        transport = self._transport or httpx.AsyncHTTPTransport(
            # Never httpx's default authorities: without TLS to central, no certificate is trusted.
            verify=self.route.tls or ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
            proxy=httpx.Proxy(proxy.url, auth=proxy.auth, ssl_context=self.route.proxy_tls) if proxy else None,
            trust_env=False,  # network.py reads the proxy variables
            limits=httpx.Limits(max_connections=64, max_keepalive_connections=16, keepalive_expiry=60),
            socket_options=keepalive_options(),
        )
        headers = {"user-agent": f"airflow-remote-worker/{__version__}"}
        return httpx.AsyncClient(transport=transport, trust_env=False, headers=headers)
