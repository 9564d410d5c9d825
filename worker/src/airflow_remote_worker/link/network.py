"""The site's network settings for the connection to central: proxy, trusted authorities, client certificate.

Owns the rules about proxies and TLS, and detects changes of the files behind them. Requests are in :mod:`.client`. Only
:class:`Proxy` holds a proxy's password, and its text never shows it.
"""

from __future__ import annotations

import ipaddress
import socket
import ssl
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

from airflow_remote_protocol.addresses import is_loopback

from airflow_remote_worker.config import Config, ConfigError, check_central
from airflow_remote_worker.errors import Refused
from airflow_remote_worker.state.directory import Membership

DIRECT = "none"
"""Value of the setting `proxy` for no proxy, whatever the environment says."""

KEEPALIVE_S = 15
"""Some networks drop a connection that was silent for 20 s."""

Stamp = tuple[object, ...]


@dataclass(frozen=True)
class Proxy:
    """An HTTP proxy. `str()` and `repr()` don't show its password."""

    url: str
    """Without user and password."""
    source: str
    """The setting or environment variable that names it."""
    auth: tuple[str, str] | None = field(default=None, repr=False)

    def __str__(self) -> str:
        return self.url


@dataclass(frozen=True)
class Route:
    """The proxy and the TLS contexts that a pool of connections is made with."""

    tls: ssl.SSLContext | None
    """None: plain http."""
    proxy: Proxy | None
    proxy_tls: ssl.SSLContext | None
    """For a proxy with an https address."""
    stamp: Stamp


@dataclass(frozen=True, kw_only=True)
class Network:
    """All network settings for the connection to central. Only :meth:`route` reads the files."""

    central: str
    insecure_http: bool = False
    ca_file: str | None = None
    client_cert: str | None = None
    client_key: str | None = None
    proxy: str | None = field(default=None, repr=False)
    proxy_auth_file: str | None = None

    @classmethod
    def of(cls, config: Config, membership: Membership | None = None, *, central: str = "") -> Network:
        """Return the settings of *config*; those not set there come from `join`.

        Raises:
            ConfigError: central's address can't be used.
        """
        known = membership or Membership(central=central, worker_id="", name="", credential="")
        insecure_http = config.insecure_http or known.insecure_http
        cert = _text(config.client_cert) or known.client_cert
        return cls(
            central=check_central(central or config.central or known.central, insecure_http=insecure_http),
            insecure_http=insecure_http,
            ca_file=_text(config.ca_file) or known.ca_file,
            client_cert=cert,
            client_key=(_text(config.client_key) if config.client_cert else known.client_key) or cert,
            proxy=config.proxy or known.proxy,
            proxy_auth_file=_text(config.proxy_auth_file) or known.proxy_auth_file,
        )

    @property
    def warning(self) -> str:
        """A warning about an unencrypted connection; empty if there is no need for one."""
        parts = urlsplit(self.central)
        if parts.scheme == "https" or is_loopback(parts.hostname or ""):
            return ""
        return (
            f"NOT ENCRYPTED: {self.central} is plain http: everyone on the network can read and change this worker's credential, "
            "its tasks' secrets and their results; use https"
        )

    def route(self) -> Route:
        """Read the files and return what connections need.

        Raises:
            Refused: a certificate can't be used.
            ConfigError: the proxy's address or password can't be used.
        """
        stamp = self.stamp()  # before reading, so that a change during reading is detected later
        proxy = self.find_proxy()
        tls = None
        if urlsplit(self.central).scheme == "https":
            tls = make_trust_context(self.ca_file)
            if self.client_cert:
                load_client_certificate(tls, cert=self.client_cert, key=self.client_key or self.client_cert)
        return Route(tls, proxy, make_trust_context(self.ca_file) if proxy and proxy.url.startswith("https:") else None, stamp)

    def stamp(self) -> Stamp:
        """Return a value that changes whenever one of the files is changed or replaced."""
        system = ssl.get_default_verify_paths()
        authorities = [self.ca_file] if self.ca_file else [system.cafile, system.capath]
        return tuple(_stamp(path) for path in (*authorities, self.client_cert, self.client_key, self.proxy_auth_file))

    def find_proxy(self) -> Proxy | None:
        """Return the proxy for central, if any.

        Raises:
            ConfigError: the proxy can't be used.
        """
        parts = urlsplit(self.central)
        host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
        if self.proxy == DIRECT:
            return None
        url, source = self.proxy, "the setting proxy"
        if not url:
            found = getproxies()
            if is_exempt(host, port, no_proxy=found.get("no", "")) or proxy_bypass(host):
                return None
            key = parts.scheme if found.get(parts.scheme) else "all"
            url, source = found.get(key), f"{key.upper()}_PROXY"
        if not url:
            return None
        proxy = parse_proxy(url, source=source)
        if self.proxy_auth_file:
            proxy = Proxy(proxy.url, proxy.source, _read_auth(self.proxy_auth_file))
        if ":" in host and parts.scheme == "https":
            # httpcore asks the proxy for ::1:443 instead of [::1]:443.
            raise ConfigError(f"central: the IPv6 address {host} can't be reached through a proxy; give central's name")
        return proxy


def parse_proxy(url: str, *, source: str) -> Proxy:
    """Parse the *url* of a proxy.

    Raises:
        ConfigError: not the address of an HTTP proxy. The error's text never shows the password.
    """
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port, parts = None, None, urlsplit("http:")
    if parts.scheme.startswith("socks"):
        raise ConfigError(f"{source}: this worker supports only HTTP proxies, not SOCKS; give an http:// address")
    if parts.scheme not in ("http", "https") or not host:
        raise ConfigError(
            f"{source}: not the address of an HTTP proxy; give one such as http://user:password@proxy.example.com:3128"
        )
    shown = f"[{host}]" if ":" in host else host
    auth = (unquote(parts.username), unquote(parts.password or "")) if parts.username else None
    return Proxy(f"{parts.scheme}://{shown}:{port or (443 if parts.scheme == 'https' else 80)}", source, auth)


def is_exempt(host: str, port: int, *, no_proxy: str) -> bool:
    """Return whether `NO_PROXY` exempts *host*.

    Entries are `*`, domains (with their subdomains), addresses or networks (10.0.0.0/8), each optionally with a port.
    """
    host = host.lower().rstrip(".")
    for entry in (part.strip().lower() for part in no_proxy.split(",")):
        if entry == "*":
            return True
        name, _, wanted = entry.rpartition(":")
        if not (name and wanted.isdigit() and (":" not in name or name.endswith("]"))):
            name, wanted = entry, ""
        name = name.strip("[]")
        if wanted and int(wanted) != port:
            continue
        if name and (_is_within(host, name) or host == (name := name.removeprefix("*").lstrip(".")) or host.endswith(f".{name}")):
            return True
    return False


def make_trust_context(ca_file: str | None) -> ssl.SSLContext:
    """Return a TLS context that trusts the authorities in *ca_file*, or without it those of the operating system.

    Raises:
        Refused: *ca_file* can't be used.
    """
    if ca_file:
        try:
            context = ssl.create_default_context(cafile=ca_file)
        except OSError as error:
            cause = error.strerror or error
            raise Refused(
                f"ca_file: {ca_file} can't be used ({cause}); give a PEM file with the authority's certificate"
            ) from None
    else:
        import truststore

        context = truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2  # even if the system's OpenSSL allows older versions
    return context


def load_client_certificate(context: ssl.SSLContext, *, cert: str, key: str) -> None:
    """Load the client certificate into *context*.

    Raises:
        Refused: the certificate or the key can't be used.
    """

    def no_passphrase() -> str:
        raise ValueError("the key has a passphrase, which a daemon can't enter")

    try:
        context.load_cert_chain(cert, key, password=no_passphrase)
    except (OSError, ValueError) as error:
        cause = (error.strerror if isinstance(error, OSError) else "") or error
        raise Refused(
            f"client_cert: {cert} with {key} can't be used ({cause}); give PEM files, the key without a passphrase"
        ) from None


def keepalive_options() -> list[tuple[int, int, int]]:
    """Return the socket options for TCP keep-alive.

    Firewalls and NAT routers drop silent connections without notice, and a central that lost power doesn't close its connections.
    The probes keep a connection known to the former and detect the latter within half a minute.
    """
    options = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]
    # macOS has TCP_KEEPALIVE instead of TCP_KEEPIDLE.
    for name, value in (("TCP_KEEPIDLE", KEEPALIVE_S), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3), ("TCP_KEEPALIVE", KEEPALIVE_S)):
        if hasattr(socket, name):
            options.append((socket.IPPROTO_TCP, getattr(socket, name), value))
    return options


def _read_auth(path: str) -> tuple[str, str]:
    try:
        line = Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        cause = getattr(error, "strerror", None) or "not a text file"
        raise ConfigError(f"proxy_auth_file: {path} can't be read: {cause}; check the path and its permissions") from None
    user, colon, password = line.partition(":")
    if not user or not colon or "\n" in line:
        raise ConfigError(f"proxy_auth_file: {path} must contain exactly one line user:password")
    return user, password


def _is_within(host: str, network: str) -> bool:
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(network, strict=False)
    except ValueError:
        return False


def _stamp(path: str | None) -> object:
    if path is None:
        return None
    try:
        found = Path(path).stat()
    except OSError:
        return "missing"
    return found.st_mtime_ns, found.st_ino, found.st_size


def _text(path: Path | None) -> str | None:
    return str(path) if path else None


def causes(error: BaseException) -> Iterable[BaseException]:
    """Yield *error* and its chain of causes."""
    found: BaseException | None = error
    while found is not None:
        yield found
        found = found.__cause__ or found.__context__
