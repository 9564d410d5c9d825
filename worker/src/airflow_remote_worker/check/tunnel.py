"""Sockets to central by hand, for `check`: through a proxy or not, with TLS or without looking at whose.

Blocking and once only. It refuses to explain: what fails is raised as it came.
"""

from __future__ import annotations

import base64
import contextlib
import re
import socket
import ssl
from dataclasses import dataclass
from urllib.parse import urlsplit

from airflow_remote_worker.link.network import Proxy, Way

TIMEOUT_S = 10.0
OBJECTION_S = 0.7
"""Longer than a round trip by satellite."""
LONGEST_HEAD = 65536
"""Of a proxy's answer to CONNECT."""


@dataclass(frozen=True)
class Address:
    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class NoTunnel(Exception):
    """The proxy answered CONNECT with anything but success."""

    def __init__(self, status: int, reason: str, schemes: str) -> None:
        super().__init__(f"{status} {reason}")
        self.status = status
        """0: not even HTTP."""
        self.reason = reason
        self.schemes = schemes
        """How one may log in, as the proxy says: `Basic, Negotiate`."""


def address_of(proxy: Proxy) -> Address:
    parts = urlsplit(proxy.url)
    assert parts.hostname is not None and parts.port is not None  # as network.parse_proxy writes it
    return Address(parts.hostname, parts.port)


def addresses(there: Address) -> list[str]:
    """Return what the resolver knows.

    Raises:
        OSError: nothing.
    """
    found = socket.getaddrinfo(there.host, there.port, type=socket.SOCK_STREAM)
    return sorted({str(entry[4][0]) for entry in found})


def connect(there: Address) -> socket.socket:
    return socket.create_connection((there.host, there.port), TIMEOUT_S)


def open_tunnel(way: Way | None, there: Address) -> socket.socket:
    """Return a connection to *there*, through the proxy of *way* if it has one.

    Raises:
        NoTunnel: the proxy will not.
        OSError: no connection, or no TLS with a proxy that speaks it.
    """
    proxy = way.proxy if way else None
    if way is None or proxy is None:
        return connect(there)
    sock = connect(address_of(proxy))
    try:
        if way.proxy_tls:
            sock = way.proxy_tls.wrap_socket(sock, server_hostname=address_of(proxy).host)
        head = f"CONNECT {there} HTTP/1.1\r\nHost: {there}\r\n"
        if proxy.auth:
            login = base64.b64encode(":".join(proxy.auth).encode()).decode()
            head += f"Proxy-Authorization: Basic {login}\r\n"
        sock.sendall(f"{head}\r\n".encode())
        _expect_success(_read_head(sock))
    except BaseException:
        sock.close()
        raise
    return sock


def hear_objection(secure: ssl.SSLSocket) -> None:
    """Wait a moment for what a server says after the handshake (TLS 1.3) when it wants a client certificate.

    Raises:
        ssl.SSLError: it does.
    """
    secure.settimeout(OBJECTION_S)
    with contextlib.suppress(TimeoutError):
        secure.recv(1)


def fetch_certificate(way: Way | None, there: Address) -> bytes:
    """Return the certificate (DER) that *there* shows, whoever signed it. Nothing is said over that connection.

    Raises:
        NoTunnel, OSError: none was shown.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with open_tunnel(way, there) as plain, context.wrap_socket(plain, server_hostname=there.host) as secure:
        return secure.getpeercert(binary_form=True) or b""


def first_certificate(pem: str) -> str:
    """Return the first certificate in a file that may hold a key and a chain as well; empty if there is none."""
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
        raise NoTunnel(0, "it does not answer as an HTTP proxy does", "")
    if not answer.group(1).startswith("2"):
        schemes = re.findall(r"^proxy-authenticate: *([\w-]+)", head, re.IGNORECASE | re.MULTILINE)
        raise NoTunnel(int(answer.group(1)), answer.group(2).strip(), ", ".join(schemes))
