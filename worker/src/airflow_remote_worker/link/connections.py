"""The worker's connections to central: by which way, how old they grow, and what makes new ones necessary."""

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
from airflow_remote_worker.link.network import Network, Way, keepalive

log = logging.getLogger(__name__)

CONNECTION_AGE_S = 15 * 60
"""Then a new pool: load balancers rebalance, and DNS is asked again."""
LOOK_EVERY_S = 60.0
"""How soon a changed certificate or password file is noticed while all is well; after a failure that it may explain, at once."""


class _Pool:
    """One client of a limited age; closed when it is old and its last request has ended."""

    def __init__(self, client: httpx.AsyncClient, born: float) -> None:
        self.client = client
        self.born = born
        self.looked_at = born
        self.requests = 0


class Connections:
    """One pool at a time, of the way that *network* names.

    Raises:
        Refused, ConfigError: that way can't be taken.
    """

    def __init__(self, network: Network, clock: Clock, transport: httpx.AsyncBaseTransport | None = None) -> None:
        """*transport*: what tests send through instead."""
        self.way = network.way() if transport is None else Way(None, None, None, ())
        self._network = network
        self._clock = clock
        self._transport = transport
        self._pool: _Pool | None = None

    @contextlib.asynccontextmanager
    async def client(self) -> AsyncIterator[httpx.AsyncClient]:
        """Lend the client of the present pool."""
        now = self._clock.monotonic()
        pool = self._pool
        changed = False
        if pool and now - pool.looked_at > LOOK_EVERY_S:
            pool.looked_at = now
            changed = self._read_anew()
        if pool is None or changed or now - pool.born > CONNECTION_AGE_S:
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

    def suspect_files(self) -> None:
        """A certificate or password may be the cause: look before the next request whether somebody has replaced it."""
        if self._pool:
            self._pool.looked_at = float("-inf")

    def _read_anew(self) -> bool:
        """Say whether the files behind the way have changed, having read them; a broken one is told once and changes nothing."""
        stamp = self._network.stamp()
        if self._transport or stamp == self.way.stamp:
            return False
        try:
            self.way = self._network.way()
        except (Refused, ConfigError) as error:
            log.warning("%s; going on with what it held before", error)
            self.way = dataclasses.replace(self.way, stamp=stamp)
            return False
        log.info("certificates or the proxy's password have changed on disk: new connections use them")
        return True

    def _make_client(self) -> httpx.AsyncClient:
        if importlib.util.find_spec("sniffio") is None:
            # httpcore tries to import it several times for each request; each failure would walk the whole path anew.
            sys.modules.setdefault("sniffio", None)  # type: ignore[arg-type]  # the language's own mark for "there is none"
        proxy = self.way.proxy
        transport = self._transport or httpx.AsyncHTTPTransport(
            # Never httpx's own authorities: without TLS to central, nobody is trusted.
            verify=self.way.tls or ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
            proxy=httpx.Proxy(proxy.url, auth=proxy.auth, ssl_context=self.way.proxy_tls) if proxy else None,
            trust_env=False,  # what the environment says of proxies is network.py's business
            limits=httpx.Limits(max_connections=64, max_keepalive_connections=16, keepalive_expiry=60),
            socket_options=keepalive(),
        )
        headers = {"user-agent": f"airflow-remote-worker/{__version__}"}
        return httpx.AsyncClient(transport=transport, trust_env=False, headers=headers)
