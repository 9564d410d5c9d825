"""Tunnels and certificates over plain sockets. `test_hops.py` tests how `check` uses them."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from airflow_remote_worker.check.tunnel import Address, NoTunnel, fetch_certificate, open_tunnel
from airflow_remote_worker.link.network import Proxy, Route

from testkit.authority import Authority

from ..tls_server import TunnelProxy, tls_central


def route_through(proxy: TunnelProxy, auth: tuple[str, str] | None = None) -> Route:
    return Route(None, Proxy(proxy.url, "test", auth), None, ())


def test_ipv6_addresses_are_bracketed_and_logins_encoded() -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as server:
        proxy = TunnelProxy(auth="u:p:ö")
        there = Address("::1", server.getsockname()[1])
        open_tunnel(route_through(proxy, ("u", "p:ö")), there).close()
        proxy.close()
    assert proxy.heads[0].splitlines()[:2] == [f"CONNECT {there} HTTP/1.1", f"Host: {there}"]
    assert str(there).startswith("[::1]:")


def test_a_refusal_keeps_the_proxy_s_status_and_reason() -> None:
    proxy = TunnelProxy(answer=b"HTTP/1.1 407 Not you\r\nProxy-Authenticate: Basic realm=x\r\nPROXY-AUTHENTICATE: NTLM\r\n\r\n")
    with pytest.raises(NoTunnel) as caught:
        open_tunnel(route_through(proxy), Address("a", 1))
    proxy.close()
    assert (caught.value.status, caught.value.reason, caught.value.schemes) == (407, "Not you", "Basic, NTLM")


@pytest.mark.parametrize("answer", [b"x" * 1_000_000, b"\x05\xff", b"HTTP/1.1 OK\r\n\r\n"])
def test_an_answer_that_is_not_http_opens_no_tunnel(answer: bytes) -> None:
    proxy = TunnelProxy(answer=answer)
    with pytest.raises((NoTunnel, ConnectionError)):
        open_tunnel(route_through(proxy), Address("a", 1))
    proxy.close()


def test_an_untrusted_certificate_is_fetched(tmp_path: Path) -> None:
    with tls_central(Authority(tmp_path, "Unknown CA").issue("central", "127.0.0.1")) as served:
        assert fetch_certificate(None, Address("127.0.0.1", served.port))
