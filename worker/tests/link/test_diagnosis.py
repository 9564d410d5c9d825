"""Texts of network failures. `test_strangers.py` tests how the daemon treats such answers."""

from __future__ import annotations

import ssl

import httpx
import pytest
from airflow_remote_worker.link.diagnosis import describe, diagnose, explain_refusal, explain_tls
from airflow_remote_worker.link.network import Proxy

CENTRAL = "https://a.example.com/air"
PROXY = Proxy("http://proxy:3128", "HTTPS_PROXY")


def redirect(location: str, central: str = CENTRAL) -> str:
    request = httpx.Request("POST", f"{central}/remote/v1/poll")
    return diagnose(httpx.Response(302, headers={"location": location}, request=request), b"", central=central)


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("https://login.example.com/x", "a redirect to https://login.example.com/x, which workers don't follow"),
        ("/login", "a redirect to https://a.example.com/login; a login page in front of central"),
        ("//evil.example.com", "which workers don't follow"),
    ],
)
def test_redirects_are_explained_by_their_target(location: str, expected: str) -> None:
    assert expected in redirect(location)


def test_a_redirect_to_https_suggests_https() -> None:
    assert "use an address that begins with https" in redirect("https://a.example.com/air", "http://a.example.com/air")


@pytest.mark.parametrize(
    ("title", "expected"),
    [
        ("400 No required SSL certificate was sent", "requires a client certificate"),
        ("400 The SSL certificate error", "requires a client certificate"),
        ("400 The plain HTTP request was sent to HTTPS port", "begins with https"),
        ("x" * 500, "x" * 100 + "'"),
        ("a\x1b[2J\n\n b", "titled 'a[2J b'"),
    ],
)
def test_a_page_s_title_is_shown_and_explains_more(title: str, expected: str) -> None:
    response = httpx.Response(400, headers={"content-type": "text/html"}, request=httpx.Request("GET", CENTRAL))
    assert expected in diagnose(response, f"<html><head><TITLE >{title}</TITLE>".encode(), central=CENTRAL)


@pytest.mark.parametrize(
    ("status", "auth", "schemes", "expected"),
    [
        (407, None, "", "the proxy http://proxy:3128 requires a login (407 No)"),
        (407, ("u", "secret"), "Basic", "refuses user 'u' with this password"),
        (407, ("u", "secret"), "Negotiate, NTLM", "requires a login by Negotiate, NTLM, which this worker doesn't support"),
        (403, None, "", "refused the connection to a.example.com:443 (403 No); ask for a rule that allows CONNECT"),
        (503, None, "", "can't reach a.example.com:443 (503 No)"),
        (400, None, "", "opens no tunnel (400 No); check that it is an HTTP proxy"),
        (0, None, "", "opens no tunnel (No)"),
    ],
)
def test_a_proxy_that_opens_no_tunnel(status: int, auth: tuple[str, str] | None, schemes: str, expected: str) -> None:
    text = explain_refusal(status, "No", central=CENTRAL, proxy=Proxy(PROXY.url, PROXY.source, auth), schemes=schemes)
    assert expected in text
    assert "secret" not in text


def test_a_proxy_login_is_recognised_with_plain_http() -> None:
    response = httpx.Response(407, headers=[("proxy-authenticate", "Basic realm=x")], request=httpx.Request("GET", "http://a"))
    assert "the proxy requires a login (407 Proxy Authentication Required)" in diagnose(response, b"", central="http://a")
    with_login = Proxy(PROXY.url, PROXY.source, ("u", "secret"))
    assert "refuses user 'u' with this password" in diagnose(response, b"", central="http://a", proxy=with_login)


def test_a_failed_connection_to_the_proxy_names_the_proxy() -> None:
    assert "the proxy http://proxy:3128 (HTTPS_PROXY) can't be reached: gone" in describe(
        httpx.ConnectError("gone"), CENTRAL, PROXY
    )
    assert f"{CENTRAL} can't be reached: gone" in describe(httpx.ConnectError("gone"), CENTRAL)
    assert "refused the connection" in describe(httpx.ProxyError("403 Forbidden"), CENTRAL, PROXY)


def test_timeouts_and_cuts_have_different_texts() -> None:
    assert "did not answer in time (ReadTimeout)" in describe(httpx.ReadTimeout(""), CENTRAL)
    assert "was cut (ReadError)" in describe(httpx.ReadError(""), CENTRAL)
    assert "did not accept the connection in time" in describe(httpx.ConnectTimeout(""), CENTRAL)


def test_tls_errors_are_found_among_the_causes() -> None:
    inner = ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] wrong version number")
    outer = httpx.ConnectError("wrapped")
    outer.__cause__ = inner
    assert "TLS with a.example.com:443 failed" in describe(outer, CENTRAL)
    assert "TLS with h:1 failed" in explain_tls(inner, "h", 1)


def test_the_operating_system_s_error_is_shown() -> None:
    outer = httpx.ConnectError("All connection attempts failed")
    outer.__cause__ = OSError("All connection attempts failed")
    outer.__cause__.__cause__ = ConnectionRefusedError(111, "Connection refused")
    assert describe(outer, CENTRAL) == f"{CENTRAL} can't be reached: Connection refused"
