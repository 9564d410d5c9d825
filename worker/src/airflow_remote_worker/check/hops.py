"""Tests the connection to central hop by hop and explains the first failure with its remedy, for operators.

Proxies and TLS are tested in :mod:`.tunnel` with plain sockets: an HTTP client does not show what answered, or its certificate.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from urllib.parse import urlsplit

from airflow_remote_worker.check import tunnel
from airflow_remote_worker.check.certificate import Certificate, read_certificate
from airflow_remote_worker.check.tunnel import Address
from airflow_remote_worker.clock import CLOCK_DIFFERS_S, Clock
from airflow_remote_worker.code.interpreter import find
from airflow_remote_worker.config import Config, ConfigError
from airflow_remote_worker.errors import Damaged, Outdated, Refused, WorkerError
from airflow_remote_worker.jobs.canary import run_canary
from airflow_remote_worker.jobs.launcher import Launcher, scrub_environment
from airflow_remote_worker.link.client import Link
from airflow_remote_worker.link.diagnosis import explain_distrust, explain_no_address, explain_refusal, explain_tls
from airflow_remote_worker.link.network import Network, Proxy, Route
from airflow_remote_worker.state.directory import Membership, NotJoined, State

MOST_STEPS = 10
"""How many trailing segments of a wrong path are removed one by one, with one request each."""


@dataclass(frozen=True)
class Hop:
    """One tested step and its result."""

    name: str
    ok: bool
    text: str
    doubtful: bool = False
    """The step works, but has a risk that the operator should know."""

    @property
    def mark(self) -> str:
        return "FAIL" if not self.ok else "WARN" if self.doubtful else "ok  "


async def check_worker(config: Config, state: State, clock: Clock) -> list[Hop]:
    """Return the tested hops up to the first failure; if there is no failure, also what tasks need on this machine."""
    hops: list[Hop] = []
    checks = _LocalChecks(config, state, clock)
    for hop in checks.run():
        hops.append(hop)
        if not hop.ok:
            return hops
    link = Link(checks.network, credential=checks.membership.credential, previous=checks.membership.previous, clock=clock)
    try:
        hops += await _check_central(link, clock)
    finally:
        await link.close()
    if all(hop.ok for hop in hops):
        hops += check_settings(config)
    if config.runtime.python and hops[-1].ok:
        hops.append(await _check_canary(config, state))
    return hops


async def check_address(network: Network, clock: Clock) -> list[Hop]:
    """Return the hops to central up to the first failure, for a machine that may not have joined. No credential is sent."""
    hops: list[Hop] = []
    try:
        route = network.route()
    except (ConfigError, Refused) as error:
        return [Hop("settings", ok=False, text=str(error))]
    for hop in _check_connection_to_central(network, route, clock):
        hops.append(hop)
        if not hop.ok:
            return hops
    link = Link(network, credential="", clock=clock)
    try:
        await link.check_post()  # `join` is a POST, and every endpoint needs a credential
    except WorkerError as error:
        base = await _find_base(network, clock)
        return [*hops, Hop("central", ok=False, text=_wrong_path(network.central, base=base) if base else str(error))]
    finally:
        await link.close()
    return [
        *hops,
        Hop(
            "central",
            ok=True,
            text=f"{network.central} answers with the worker protocol, and POST requests reach it; use this address to join",
        ),
    ]


def check_settings(config: Config) -> list[Hop]:
    """Return what tasks need on this machine, besides a runtime that can be started (see :func:`_check_runtime`)."""
    hops = []
    if config.runtime.python is None:
        found = find(config)
        text = f"central sends the runtimes of tasks, for the platform {found.platform}; they are made from {found.python}"
        hops.append(Hop("runtime", ok=not found.trouble, text=found.trouble or text))
    if not config.bundles:
        hops.append(Hop("bundles", ok=True, text="this machine has none of its own; central sends the Dag files"))
    for name, bundle in config.bundles.items():
        if not bundle.path.is_dir():
            text = f"{name}: there is no directory {bundle.path}; create it, or correct bundles.{name}.path"
            hops.append(Hop("bundles", ok=False, text=text))
        elif not os.access(bundle.path, os.R_OK | os.X_OK):
            text = f"{name}: {bundle.path} can't be read by this user; change its permissions"
            hops.append(Hop("bundles", ok=False, text=text))
        else:
            hops.append(Hop("bundles", ok=True, text=f"{name} is in {bundle.path}"))
    return hops


async def _find_base(network: Network, clock: Clock) -> str:
    """Return the first shorter address at which central answers; empty: it answers at none of them."""
    parts = urlsplit(network.central)
    steps = [step for step in parts.path.split("/") if step]
    for count in range(len(steps) - 1, max(-1, len(steps) - 1 - MOST_STEPS), -1):
        base = parts._replace(path="".join(f"/{step}" for step in steps[:count])).geturl()
        link = Link(replace(network, central=base), credential="", clock=clock)
        try:
            await link.check_post()
        except WorkerError:
            continue
        finally:
            await link.close()
        return base
    return ""


def _wrong_path(central: str, *, base: str) -> str:
    surplus = central.removeprefix(base)
    return (
        f"{central} is a page of Airflow, not Airflow's address: leave out {surplus} and use {base}, where the remote API answers"
    )


class _LocalChecks:
    """All checks before the first request to central."""

    def __init__(self, config: Config, state: State, clock: Clock) -> None:
        self.membership: Membership
        self.network: Network
        self._config = config
        self._state = state
        self._clock = clock

    def run(self) -> Iterator[Hop]:
        """Yield the hops; a failed one is the last."""
        try:
            self.membership = self._state.membership()
            self.network = Network.of(self._config, self.membership)
            route = self.network.route()
        except (NotJoined, Damaged, ConfigError, Refused) as error:
            yield Hop("settings", ok=False, text=str(error))
            return
        yield Hop("settings", ok=True, text=f"worker {self.membership.name} of {self.network.central}")
        if self._config.runtime.python:
            yield _check_runtime(self._config.runtime.python)
        yield from _check_connection_to_central(self.network, route, self._clock)


def _check_connection_to_central(network: Network, route: Route, clock: Clock) -> Iterator[Hop]:
    """Yield the hops up to the first request to central. The hops after a failed one mean nothing."""
    if network.warning:
        yield Hop("encryption", ok=True, text=network.warning, doubtful=True)
    if network.client_cert:
        yield _check_client_certificate(network.client_cert, clock)
    parts = urlsplit(network.central)
    assert parts.hostname is not None
    target = Address(parts.hostname, parts.port or (443 if parts.scheme == "https" else 80))
    yield from _check_connection(route.proxy, target)
    if parts.scheme == "https":
        if route.proxy:
            yield _check_tunnel(route, target, network.central)
        yield _check_tls(route, target)


def _check_runtime(python: Path) -> Hop:
    if os.access(python, os.X_OK):
        return Hop("runtime", ok=True, text=f"{python} can be started")
    remedy = "set runtime.python to the Python of an environment with the Airflow Task SDK"
    return Hop("runtime", ok=False, text=f"{python} is not an interpreter that can be started; {remedy}")


async def _check_canary(config: Config, state: State) -> Hop:
    """Run a built-in task in the runtime, as the daemon does at its start. Works while a daemon runs."""
    directory = state.root / "check"
    python = config.runtime.python
    assert python is not None, "the canary is only run in the site's own runtime"
    env = scrub_environment(os.environ, python=python, airflow_home=state.airflow_home, extra=config.runtime.env)
    zygote_log = directory / "zygote.log"
    launcher = Launcher(python, env=env, home=state.airflow_home, zygote_log=zygote_log, fork=False)
    found = await run_canary(launcher, directory)
    if found.trouble:
        return Hop("canary", ok=False, text=found.trouble)
    airflow = f"Airflow {found.airflow}, " if found.airflow else ""
    return Hop(
        "canary", ok=True, text=f"a built-in task ran in the runtime ({airflow}Task SDK {found.task_sdk}, Python {found.python})"
    )


def _check_client_certificate(client_cert: str, clock: Clock) -> Hop:
    try:
        own = read_certificate(ssl.PEM_cert_to_DER_cert(tunnel.first_certificate(Path(client_cert).read_text())))
    except ValueError as error:  # OpenSSL has just read it: its format is unknown here only
        return Hop(
            "identity", ok=True, text=f"client certificate in {client_cert}; its subject can't be read ({error})", doubtful=True
        )
    now = datetime.fromtimestamp(clock.wall(), timezone.utc)
    ok = own.not_before <= now <= own.not_after
    text = f"client certificate of {own.subject}, issued by {own.issuer}, valid {_validity(own)}"
    return Hop(
        "identity",
        ok=ok,
        text=text if ok else f"{text}, not today; renew it (the worker reads it again without a restart), or set the clock",
    )


def _check_connection(proxy: Proxy | None, target: Address) -> Iterator[Hop]:
    first = target
    if proxy:
        first = tunnel.proxy_address(proxy)
        login = f" as user {proxy.auth[0]!r}" if proxy.auth else ""
        yield Hop("proxy", ok=True, text=f"connections use the proxy {proxy}{login} ({proxy.source})")
    try:
        found = tunnel.resolve(first)
    except (OSError, UnicodeError) as error:
        yield Hop("DNS", ok=False, text=explain_no_address(first.host, error, proxy))
        return
    yield Hop("DNS", ok=True, text=f"{first.host} has the address {', '.join(found)}")
    try:
        tunnel.connect(first).close()
    except OSError as error:
        remedy = (
            f"check the proxy's address ({proxy.source})"
            if proxy
            else "check that firewalls allow outbound connections to it, or set a proxy"
        )
        yield Hop("TCP", ok=False, text=f"{first.host}:{first.port} accepts no connection ({error}); {remedy}")
        return
    yield Hop("TCP", ok=True, text=f"{first.host}:{first.port} accepts connections")


def _check_tunnel(route: Route, target: Address, central: str) -> Hop:
    assert route.proxy is not None
    try:
        tunnel.open_tunnel(route, target).close()
    except tunnel.NoTunnel as error:
        return Hop(
            "tunnel",
            ok=False,
            text=explain_refusal(error.status, error.reason, central=central, proxy=route.proxy, schemes=error.schemes),
        )
    except ssl.SSLCertVerificationError as error:
        return Hop("tunnel", ok=False, text=_explain_distrust(error, tunnel.proxy_address(route.proxy), None))
    except OSError as error:
        return Hop(
            "tunnel", ok=False, text=f"the proxy {route.proxy} cut the connection ({error}); check that it is an HTTP proxy"
        )
    return Hop("tunnel", ok=True, text=f"the proxy opens a tunnel to {target}")


def _check_tls(route: Route, target: Address) -> Hop:
    assert route.tls is not None
    try:
        with tunnel.open_tunnel(route, target) as plain, route.tls.wrap_socket(plain, server_hostname=target.host) as secure:
            tunnel.wait_for_tls_alert(secure)
            theirs = read_certificate(secure.getpeercert(binary_form=True) or b"")
            return Hop(
                "TLS",
                ok=True,
                text=f"{secure.version()}, the certificate is issued by {theirs.issuer}, valid {_validity(theirs)}",
            )
    except ssl.SSLCertVerificationError as error:
        return Hop("TLS", ok=False, text=_explain_distrust(error, target, route))
    except ssl.SSLError as error:
        return Hop("TLS", ok=False, text=explain_tls(error, target.host, target.port))
    except (OSError, tunnel.NoTunnel, ValueError) as error:
        return Hop("TLS", ok=False, text=f"TLS with {target} failed ({error}); check port and address")


def _explain_distrust(error: ssl.SSLCertVerificationError, target: Address, route: Route | None) -> str:
    """Return a text about the untrusted certificate, which is fetched over a second connection without sending anything."""
    try:
        theirs = read_certificate(tunnel.fetch_certificate(route, target))
    except (OSError, tunnel.NoTunnel, ValueError):
        return explain_distrust(error, target.host, issuer="an unknown issuer", subject="unknown", valid="at another time")
    return explain_distrust(error, target.host, issuer=theirs.issuer, subject=theirs.subject, valid=_validity(theirs))


def _validity(certificate: Certificate) -> str:
    return f"from {certificate.not_before:%Y-%m-%d} to {certificate.not_after:%Y-%m-%d}"


async def _check_central(link: Link, clock: Clock) -> list[Hop]:
    hops = [Hop("central", ok=True, text=f"{link.central} answers with the worker protocol")]
    try:
        pong = await link.ping()
    except Refused as error:
        return [*hops, Hop("credential", ok=False, text=f"{error}; ask for a new enrolment token and join again")]
    except Outdated as error:
        return [Hop("central", ok=False, text=f"{error}; update this worker")]
    except WorkerError as error:
        return [Hop("central", ok=False, text=str(error))]
    hops.append(Hop("credential", ok=True, text=f"accepted as {pong.name}"))
    try:
        await link.check_post()
    except WorkerError as error:
        remedy = "GET requests reach central, POST requests don't; the worker needs both"
        return [*hops, Hop("POST", ok=False, text=f"{error}; {remedy}")]
    hops.append(Hop("POST", ok=True, text="POST requests reach central"))
    apart = pong.time - clock.wall()
    text = f"this clock is {abs(apart):.0f} s {'behind' if apart > 0 else 'ahead of'} central's"
    right = abs(apart) < CLOCK_DIFFERS_S
    return [*hops, Hop("clock", ok=right, text=text if right else f"{text}; set up NTP on this machine")]
