"""Plain sockets to central for `check`: through a proxy or directly, with TLS with or without verification.

Functions block and don't retry. Errors are raised unchanged; :mod:`.hops` explains them.
"""

from __future__ import annotations

import base64
import contextlib
import re
import socket
import ssl
from dataclasses import dataclass
from urllib.parse import urlsplit

from airflow_remote_worker.link.network import Proxy, Route

TIMEOUT_S = 10.0
ALERT_WAIT_S = 0.7
"""How long to wait for a TLS alert: longer than a round trip by satellite."""
LONGEST_HEAD = 65536
"""In bytes, of a proxy's answer to CONNECT."""


@dataclass(frozen=True)
class Address:
    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class NoTunnel(Exception):
    """The proxy answered CONNECT with anything but success."""

    def __init__(self, status: int, reason: str, *, schemes: str) -> None:
        super().__init__(f"{status} {reason}")
        self.status = status
        """0: the answer was not HTTP."""
        self.reason = reason
        self.schemes = schemes
        """The login schemes that the proxy offers, such as `Basic, Negotiate`."""


def proxy_address(proxy: Proxy) -> Address:
    parts = urlsplit(proxy.url)
    assert parts.hostname is not None and parts.port is not None  # network.parse_proxy always sets both
    return Address(parts.hostname, parts.port)


def resolve(target: Address) -> list[str]:
    """Return the addresses of a host.

    Raises:
        OSError: the host has no address.
    """
    found = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    return sorted({str(entry[4][0]) for entry in found})


def connect(target: Address) -> socket.socket:
    return socket.create_connection((target.host, target.port), TIMEOUT_S)


def open_tunnel(route: Route | None, target: Address) -> socket.socket:
    """Return a connection to *target*, through the proxy of *route* if it has one.

    Raises:
        NoTunnel: the proxy refuses.
        OSError: the connection failed, or TLS with the proxy.
    """
    proxy = route.proxy if route else None
    if route is None or proxy is None:
        return connect(target)
    sock = connect(proxy_address(proxy))
    try:
        if route.proxy_tls:
            sock = route.proxy_tls.wrap_socket(sock, server_hostname=proxy_address(proxy).host)
        head = f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n"
        if proxy.auth:
            login = base64.b64encode(":".join(proxy.auth).encode()).decode()
            head += f"Proxy-Authorization: Basic {login}\r\n"
        sock.sendall(f"{head}\r\n".encode())
        _expect_success(_read_head(sock))
    except BaseException:  # the caller gets no socket that it could close
        sock.close()
        raise
    return sock


def wait_for_tls_alert(secure: ssl.SSLSocket) -> None:
    """Wait for the alert that a server sends after the TLS 1.3 handshake if it requires a client certificate.

    Raises:
        ssl.SSLError: the server sent an alert.
    """
    secure.settimeout(ALERT_WAIT_S)
    with contextlib.suppress(TimeoutError):
        secure.recv(1)


def fetch_certificate(route: Route | None, target: Address) -> bytes:
    """Return the certificate (DER) of *target* without verifying it. Nothing is sent over the connection.

    Raises:
        NoTunnel, OSError: the target could not be reached, or has no certificate.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with open_tunnel(route, target) as plain, context.wrap_socket(plain, server_hostname=target.host) as secure:
        return secure.getpeercert(binary_form=True) or b""


def first_certificate(pem: str) -> str:
    """Return the first certificate in *pem*, which may also hold a key and a chain; empty if it holds no certificate."""
    found = re.search(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", pem, re.DOTALL)
    return found.group() if found else ""


def _read_head(sock: socket.socket) -> str:
    head = b""
    while b"\r\n\r\n" not in head:
        more = sock.recv(4096)
        if not more or len(head) > LONGEST_HEAD:
            break
        head += more
    return head.decode("latin-1")


def _expect_success(head: str) -> None:
    answer = re.match(r"HTTP/1\.\d (\d{3}) ?([^\r\n]{0,200})", head)
    if not answer:
        raise NoTunnel(0, "not an answer of an HTTP proxy", schemes="")
    if not answer.group(1).startswith("2"):
        schemes = re.findall(r"^proxy-authenticate: *([\w-]+)", head, re.IGNORECASE | re.MULTILINE)
        raise NoTunnel(int(answer.group(1)), answer.group(2).strip(), schemes=", ".join(schemes))
