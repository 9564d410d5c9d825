"""Walks the way to central hop by hop and names the first that fails, and the remedy. For people, before they open a ticket.

Proxies and TLS are tried in :mod:`.tunnel`, by hand: an HTTP client would not tell who answered, or whose certificate it was.
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
from airflow_remote_worker.config import FILE_NAME, Config, ConfigError
from airflow_remote_worker.errors import Damaged, Outdated, Refused, WorkerError
from airflow_remote_worker.jobs.canary import run_canary
from airflow_remote_worker.jobs.launcher import Launcher, scrubbed
from airflow_remote_worker.link.client import Link
from airflow_remote_worker.link.diagnosis import distrust, explain_no_address, explain_refusal, explain_tls
from airflow_remote_worker.link.network import Network, Proxy, Way
from airflow_remote_worker.state.directory import Membership, NotJoined, State

MOST_STEPS = 10
"""How many steps of a wrong path are taken back, one request each."""


@dataclass(frozen=True)
class Hop:
    """One step, and how it went."""

    name: str
    ok: bool
    text: str
    doubtful: bool = False
    """It works, and somebody should know at what price."""

    @property
    def mark(self) -> str:
        return "FAIL" if not self.ok else "WARN" if self.doubtful else "ok  "


async def check(config: Config, state: State, clock: Clock) -> list[Hop]:
    """Return the hops walked, up to the first that fails; if none does, also what tasks need on this machine."""
    hops: list[Hop] = []
    walk = _Walk(config, state, clock)
    for hop in walk.local():
        hops.append(hop)
        if not hop.ok:
            return hops
    link = Link(walk.network, credential=walk.membership.credential, previous=walk.membership.previous, clock=clock)
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
    """Return the hops to central of a machine that may not have joined, up to the first that fails. No credential is sent."""
    hops: list[Hop] = []
    try:
        way = network.way()
    except (ConfigError, Refused) as error:
        return [Hop("settings", False, str(error))]
    for hop in _walk_to_central(network, way, clock):
        hops.append(hop)
        if not hop.ok:
            return hops
    link = Link(network, credential="", clock=clock)
    try:
        await link.prove_post()  # `join` is a POST, and no route needs less than a credential
    except WorkerError as error:
        base = await _find_base(network, clock)
        return [*hops, Hop("central", False, _wrong_path(network.central, base) if base else str(error))]
    finally:
        await link.close()
    return [
        *hops,
        Hop("central", True, f"{network.central} speaks our protocol, and POST gets through; to join, use this address"),
    ]


def check_settings(config: Config) -> list[Hop]:
    """Return what tasks need on this machine beside a runtime that can be started (see :func:`_check_runtime`)."""
    hops = []
    if config.runtime.python is None:
        remedy = "set runtime.python to the Python of an environment with the Airflow Task SDK"
        hops.append(Hop("runtime", False, f"no runtime is set, so no task can run here; {remedy}, in {config.state / FILE_NAME}"))
    if not config.bundles:
        text = "no bundle is set, so no Dag file can be found here; set bundles.<name>.path to the directory with the Dag files"
        hops.append(Hop("bundles", False, f"{text}, in {config.state / FILE_NAME} (Airflow's default bundle is dags-folder)"))
    for name, bundle in config.bundles.items():
        if not bundle.path.is_dir():
            text = f"{name}: there is no directory {bundle.path}; create it, or correct bundles.{name}.path"
            hops.append(Hop("bundles", False, text))
        elif not os.access(bundle.path, os.R_OK | os.X_OK):
            text = f"{name}: {bundle.path} can't be read by this user; change its permissions"
            hops.append(Hop("bundles", False, text))
        else:
            hops.append(Hop("bundles", True, f"{name} is in {bundle.path}"))
    return hops


async def _find_base(network: Network, clock: Clock) -> str:
    """Return the shorter address at which central does answer; empty: none of those on the way up does."""
    parts = urlsplit(network.central)
    steps = [step for step in parts.path.split("/") if step]
    for count in range(len(steps) - 1, max(-1, len(steps) - 1 - MOST_STEPS), -1):
        base = parts._replace(path="".join(f"/{step}" for step in steps[:count])).geturl()
        link = Link(replace(network, central=base), credential="", clock=clock)
        try:
            await link.prove_post()
        except WorkerError:
            continue
        finally:
            await link.close()
        return base
    return ""


def _wrong_path(central: str, base: str) -> str:
    surplus = central.removeprefix(base)
    return (
        f"{central} is a page of Airflow, not Airflow's address: leave out {surplus} and use {base}, where the remote API answers"
    )


class _Walk:
    """Everything before the first word to central itself."""

    def __init__(self, config: Config, state: State, clock: Clock) -> None:
        self.membership: Membership
        self.network: Network
        self._config = config
        self._state = state
        self._clock = clock

    def local(self) -> Iterator[Hop]:
        """Yield hop after hop; a failing one is the last."""
        try:
            self.membership = self._state.membership()
            self.network = Network.of(self._config, self.membership)
            way = self.network.way()
        except (NotJoined, Damaged, ConfigError, Refused) as error:
            yield Hop("settings", False, str(error))
            return
        yield Hop("settings", True, f"worker {self.membership.name} of {self.network.central}")
        if self._config.runtime.python:
            yield _check_runtime(self._config.runtime.python)
        yield from _walk_to_central(self.network, way, self._clock)


def _walk_to_central(network: Network, way: Way, clock: Clock) -> Iterator[Hop]:
    """Yield hop after hop, up to the first word to central; a failing one is the last that means anything."""
    if network.warning:
        yield Hop("encryption", True, network.warning, doubtful=True)
    if network.client_cert:
        yield _check_identity(network.client_cert, clock)
    parts = urlsplit(network.central)
    assert parts.hostname is not None
    there = Address(parts.hostname, parts.port or (443 if parts.scheme == "https" else 80))
    yield from _check_connection(way.proxy, there)
    if parts.scheme == "https":
        if way.proxy:
            yield _check_tunnel(way, there, network.central)
        yield _check_tls(way, there)


def _check_runtime(python: Path) -> Hop:
    if os.access(python, os.X_OK):
        return Hop("runtime", True, f"{python} can be started")
    remedy = "set runtime.python to the Python of an environment with the Airflow Task SDK"
    return Hop("runtime", False, f"{python} is not an interpreter that can be started; {remedy}")


async def _check_canary(config: Config, state: State) -> Hop:
    """Run a built-in task in the runtime, as the daemon does at its start. Beside a daemon that runs."""
    directory = state.root / "check"
    env = scrubbed(os.environ, airflow_home=state.airflow_home, extra=config.runtime.env)
    zygote_log = directory / "zygote.log"
    launcher = Launcher(config.runtime.python, env=env, home=state.airflow_home, zygote_log=zygote_log, fork=False)
    found = await run_canary(launcher, directory)
    if found.trouble:
        return Hop("canary", False, found.trouble)
    airflow = f"Airflow {found.airflow}, " if found.airflow else ""
    return Hop("canary", True, f"a built-in task ran in the runtime ({airflow}Task SDK {found.task_sdk}, Python {found.python})")


def _check_identity(client_cert: str, clock: Clock) -> Hop:
    try:
        own = read_certificate(ssl.PEM_cert_to_DER_cert(tunnel.first_certificate(Path(client_cert).read_text())))
    except ValueError as error:  # OpenSSL has just read it: it is written in a way that we don't know
        return Hop("identity", True, f"client certificate in {client_cert}, of whom can't be told ({error})", doubtful=True)
    now = datetime.fromtimestamp(clock.wall(), timezone.utc)
    ok = own.not_before <= now <= own.not_after
    text = f"client certificate of {own.subject}, issued by {own.issuer}, valid {_validity(own)}"
    return Hop("identity", ok, text if ok else f"{text}, not now; renew it (it is read anew without a restart), or set the clock")


def _check_connection(proxy: Proxy | None, there: Address) -> Iterator[Hop]:
    first = there
    if proxy:
        first = tunnel.address_of(proxy)
        login = f" as user {proxy.auth[0]!r}" if proxy.auth else ""
        yield Hop("proxy", True, f"the way leads through {proxy}{login} ({proxy.source})")
    try:
        found = tunnel.addresses(first)
    except (OSError, UnicodeError) as error:
        yield Hop("DNS", False, explain_no_address(first.host, error, proxy))
        return
    yield Hop("DNS", True, f"{first.host} is {', '.join(found)}")
    try:
        tunnel.connect(first).close()
    except OSError as error:
        remedy = (
            f"check the proxy's address ({proxy.source})"
            if proxy
            else "ask whether a firewall allows outbound connections there, or set a proxy"
        )
        yield Hop("TCP", False, f"{first.host}:{first.port} takes no connection ({error}); {remedy}")
        return
    yield Hop("TCP", True, f"{first.host}:{first.port} takes connections")


def _check_tunnel(way: Way, there: Address, central: str) -> Hop:
    assert way.proxy is not None
    try:
        tunnel.open_tunnel(way, there).close()
    except tunnel.NoTunnel as error:
        return Hop("tunnel", False, explain_refusal(error.status, error.reason, central, way.proxy, schemes=error.schemes))
    except ssl.SSLCertVerificationError as error:
        return Hop("tunnel", False, _explain_distrust(error, tunnel.address_of(way.proxy), None))
    except OSError as error:
        return Hop("tunnel", False, f"the proxy {way.proxy} cut the connection ({error}); is it an HTTP proxy?")
    return Hop("tunnel", True, f"the proxy opens a tunnel to {there}")


def _check_tls(way: Way, there: Address) -> Hop:
    assert way.tls is not None
    try:
        with tunnel.open_tunnel(way, there) as plain, way.tls.wrap_socket(plain, server_hostname=there.host) as secure:
            tunnel.hear_objection(secure)
            theirs = read_certificate(secure.getpeercert(binary_form=True) or b"")
            return Hop(
                "TLS", True, f"{secure.version()}, the certificate is issued by {theirs.issuer}, valid {_validity(theirs)}"
            )
    except ssl.SSLCertVerificationError as error:
        return Hop("TLS", False, _explain_distrust(error, there, way))
    except ssl.SSLError as error:
        return Hop("TLS", False, explain_tls(error, there.host, there.port))
    except (OSError, tunnel.NoTunnel, ValueError) as error:
        return Hop("TLS", False, f"no TLS with {there} ({error}); check port and address")


def _explain_distrust(error: ssl.SSLCertVerificationError, there: Address, way: Way | None) -> str:
    """Look at the certificate that was not trusted, in a second connection that nothing is sent over."""
    try:
        theirs = read_certificate(tunnel.fetch_certificate(way, there))
    except (OSError, tunnel.NoTunnel, ValueError):
        return distrust(error, there.host, issuer="somebody", subject="unknown", valid="at another time")
    return distrust(error, there.host, issuer=theirs.issuer, subject=theirs.subject, valid=_validity(theirs))


def _validity(certificate: Certificate) -> str:
    return f"from {certificate.not_before:%Y-%m-%d} to {certificate.not_after:%Y-%m-%d}"


async def _check_central(link: Link, clock: Clock) -> list[Hop]:
    hops = [Hop("central", True, f"{link.central} speaks our protocol")]
    try:
        pong = await link.ping()
    except Refused as error:
        return [*hops, Hop("credential", False, f"{error}; ask for a new enrolment token and join again")]
    except Outdated as error:
        return [Hop("central", False, f"{error}; update this worker")]
    except WorkerError as error:
        return [Hop("central", False, str(error))]
    hops.append(Hop("credential", True, f"accepted as {pong.name}"))
    try:
        await link.prove_post()
    except WorkerError as error:
        remedy = "GET gets through, POST does not: the worker needs both"
        return [*hops, Hop("POST", False, f"{error}; {remedy}")]
    hops.append(Hop("POST", True, "gets through as well as GET"))
    apart = pong.time - clock.wall()
    told = f"this clock is {abs(apart):.0f} s {'behind' if apart > 0 else 'ahead of'} central's"
    right = abs(apart) < CLOCK_DIFFERS_S
    return [*hops, Hop("clock", right, told if right else f"{told}; set up NTP on this machine")]
