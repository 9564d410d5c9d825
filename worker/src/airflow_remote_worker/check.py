"""Walks the way to central hop by hop and names the first that fails, and the remedy. For people, before they open a ticket."""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from airflow_remote_worker.clock import CLOCK_DIFFERS_S, Clock
from airflow_remote_worker.config import Config, ConfigError, check_central
from airflow_remote_worker.errors import Damaged, Outdated, Refused, Unreachable, WorkerError
from airflow_remote_worker.link import Link, tls_context
from airflow_remote_worker.state import NotJoined, State

CONNECT_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class Hop:
    """One step, and how it went."""

    name: str
    ok: bool
    text: str


@dataclass(frozen=True)
class _Address:
    host: str
    port: int


async def check(config: Config, state: State, clock: Clock) -> list[Hop]:
    """Return the hops walked; the last one is the failing one, if any."""
    hops: list[Hop] = []
    for step in _local_steps(config, state):
        hop = step()
        hops.append(hop)
        if not hop.ok:
            return hops
    membership = state.membership()
    central = check_central(config.central or membership.central, insecure_http=config.insecure_http or membership.insecure_http)
    ca_file = str(config.ca_file) if config.ca_file else membership.ca_file
    parts = urlsplit(central)
    assert parts.hostname is not None
    there = _Address(parts.hostname, parts.port or (443 if parts.scheme == "https" else 80))
    proxy = _proxy_for(config, parts.scheme, there.host)
    first = there
    if proxy:
        proxy_parts = urlsplit(proxy)
        first = _Address(proxy_parts.hostname or "", proxy_parts.port or (443 if proxy_parts.scheme == "https" else 80))
        hops.append(Hop("proxy", True, f"the way leads through {first.host}:{first.port}"))
    steps: list[Callable[[], Hop]] = [lambda: _check_dns(first), lambda: _check_tcp(first, via_proxy=bool(proxy))]
    if parts.scheme == "https" and not proxy:
        steps.append(lambda: _check_tls(there, ca_file))
    for step in steps:
        hop = step()
        hops.append(hop)
        if not hop.ok:
            return hops
    link = Link(central, credential=membership.credential, clock=clock, ca_file=ca_file, proxy=config.proxy)
    try:
        hops += await _check_central(link, clock)
    finally:
        await link.close()
    return hops


def _local_steps(config: Config, state: State) -> Iterator[Callable[[], Hop]]:
    yield lambda: _check_joined(config, state)
    if config.runtime.python:
        yield lambda: _check_runtime(config.runtime.python)


def _check_joined(config: Config, state: State) -> Hop:
    try:
        membership = state.membership()
        central = config.central or membership.central
        check_central(central, insecure_http=config.insecure_http or membership.insecure_http)
    except (NotJoined, Damaged, ConfigError) as error:
        return Hop("settings", False, str(error))
    return Hop("settings", True, f"worker {membership.name} of {central}")


def _check_runtime(python: Path | None) -> Hop:
    if python and os.access(python, os.X_OK):
        return Hop("runtime", True, f"{python} can be started")
    remedy = "set runtime.python to the Python of an environment with the Airflow Task SDK"
    return Hop("runtime", False, f"{python} is not an interpreter that can be started; {remedy}")


def _check_dns(address: _Address) -> Hop:
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    except OSError as error:
        text = f"{address.host} has no address ({error}); check the name, this machine's resolver, or set a proxy"
        return Hop("DNS", False, text)
    return Hop("DNS", True, f"{address.host} is {', '.join(sorted({str(entry[4][0]) for entry in found}))}")


def _check_tcp(address: _Address, *, via_proxy: bool) -> Hop:
    try:
        socket.create_connection((address.host, address.port), CONNECT_TIMEOUT_S).close()
    except OSError as error:
        remedy = (
            "check the proxy's address"
            if via_proxy
            else "ask whether a firewall allows outbound connections there, or set a proxy"
        )
        return Hop("TCP", False, f"{address.host}:{address.port} takes no connection ({error}); {remedy}")
    return Hop("TCP", True, f"{address.host}:{address.port} takes connections")


def _check_tls(address: _Address, ca_file: str | None) -> Hop:
    try:
        context = tls_context(ca_file)
        with (
            socket.create_connection((address.host, address.port), CONNECT_TIMEOUT_S) as plain,
            context.wrap_socket(plain, server_hostname=address.host) as secure,
        ):
            return Hop("TLS", True, f"{secure.version()}, certificate accepted")
    except ssl.SSLCertVerificationError as error:
        remedy = "if a proxy inspects TLS, install its authority here or name it with --ca-file; else check the clock"
        return Hop("TLS", False, f"the certificate of {address.host} is not trusted ({error.verify_message or error}); {remedy}")
    except (OSError, Refused) as error:
        return Hop("TLS", False, f"no TLS with {address.host}:{address.port} ({error}); check port and address")


async def _check_central(link: Link, clock: Clock) -> list[Hop]:
    try:
        pong = await link.ping()
    except Refused as error:
        return [
            Hop("central", True, f"{link.central} speaks our protocol"),
            Hop("credential", False, f"{error}; ask for a new enrolment token and join again"),
        ]
    except Outdated as error:
        return [Hop("central", False, f"{error}; update this worker")]
    except (Unreachable, WorkerError) as error:
        return [Hop("central", False, str(error))]
    apart = pong.time - clock.wall()
    where = "behind" if apart > 0 else "ahead of"
    told = f"this clock is {abs(apart):.0f} s {where} central's"
    return [
        Hop("central", True, f"{link.central} speaks our protocol"),
        Hop("credential", True, f"accepted as {pong.name}"),
        Hop(
            "clock", abs(apart) < CLOCK_DIFFERS_S, told if abs(apart) < CLOCK_DIFFERS_S else f"{told}; set up NTP on this machine"
        ),
    ]


def _proxy_for(config: Config, scheme: str, host: str) -> str | None:
    if config.proxy:
        return config.proxy
    if proxy_bypass(host):
        return None
    found = getproxies()
    return found.get(scheme) or found.get("all")
