"""What the whole daemon makes of strangers' pages is in `test_strangers.py`."""

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
    return diagnose(httpx.Response(302, headers={"location": location}, request=request), b"", central)


@pytest.mark.parametrize(
    ("location", "told"),
    [
        ("https://login.example.com/x", "a redirect to https://login.example.com/x, which no worker follows"),
        ("/login", "a redirect to https://a.example.com/login; a login page in front of central"),
        ("//evil.example.com", "which no worker follows"),
    ],
)
def test_redirects_are_told_by_where_they_lead(location: str, told: str) -> None:
    assert told in redirect(location)


def test_a_redirect_to_https_says_so() -> None:
    assert "use an address that begins with it" in redirect("https://a.example.com/air", "http://a.example.com/air")


@pytest.mark.parametrize(
    ("title", "told"),
    [
        ("400 No required SSL certificate was sent", "wants a client certificate"),
        ("400 The SSL certificate error", "wants a client certificate"),
        ("400 The plain HTTP request was sent to HTTPS port", "begins with https"),
        ("x" * 500, "x" * 100 + "'"),
        ("a\x1b[2J\n\n b", "titled 'a[2J b'"),
    ],
)
def test_a_page_s_title_is_told_and_tells_more(title: str, told: str) -> None:
    response = httpx.Response(400, headers={"content-type": "text/html"}, request=httpx.Request("GET", CENTRAL))
    assert told in diagnose(response, f"<html><head><TITLE >{title}</TITLE>".encode(), CENTRAL)


@pytest.mark.parametrize(
    ("status", "auth", "schemes", "told"),
    [
        (407, None, "", "the proxy http://proxy:3128 wants a login (407 No)"),
        (407, ("u", "secret"), "Basic", "does not accept user 'u' and its password"),
        (407, ("u", "secret"), "Negotiate, NTLM", "wants a login by Negotiate, NTLM, which this worker doesn't speak"),
        (403, None, "", "refused the way to a.example.com:443 (403 No); ask for a rule that allows CONNECT"),
        (503, None, "", "can't reach a.example.com:443 itself"),
        (400, None, "", "opens no tunnels (400 No); is it an HTTP proxy"),
        (0, None, "", "opens no tunnels (No)"),
    ],
)
def test_a_proxy_that_opens_no_tunnel(status: int, auth: tuple[str, str] | None, schemes: str, told: str) -> None:
    text = explain_refusal(status, "No", CENTRAL, Proxy(PROXY.url, PROXY.source, auth), schemes=schemes)
    assert told in text
    assert "secret" not in text


def test_a_login_is_asked_for_in_plain_http_as_well() -> None:
    response = httpx.Response(407, headers=[("proxy-authenticate", "Basic realm=x")], request=httpx.Request("GET", "http://a"))
    assert "the proxy wants a login (407 Proxy Authentication Required)" in diagnose(response, b"", "http://a")
    with_login = Proxy(PROXY.url, PROXY.source, ("u", "secret"))
    assert "does not accept user 'u' and its password" in diagnose(response, b"", "http://a", with_login)


def test_the_proxy_is_blamed_for_connections_that_end_at_it() -> None:
    assert "the proxy http://proxy:3128 (HTTPS_PROXY) can't be reached: gone" in describe(
        httpx.ConnectError("gone"), CENTRAL, PROXY
    )
    assert f"{CENTRAL} can't be reached: gone" in describe(httpx.ConnectError("gone"), CENTRAL)
    assert "refused the way" in describe(httpx.ProxyError("403 Forbidden"), CENTRAL, PROXY)


def test_silence_and_cuts_are_told_apart() -> None:
    assert "did not answer in time (ReadTimeout)" in describe(httpx.ReadTimeout(""), CENTRAL)
    assert "was cut (ReadError)" in describe(httpx.ReadError(""), CENTRAL)
    assert "did not take the connection in time" in describe(httpx.ConnectTimeout(""), CENTRAL)


def test_tls_errors_are_found_below_what_the_http_client_says() -> None:
    inner = ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] wrong version number")
    outer = httpx.ConnectError("wrapped")
    outer.__cause__ = inner
    assert "no TLS with a.example.com:443" in describe(outer, CENTRAL)
    assert "no TLS with h:1" in explain_tls(inner, "h", 1)


def test_what_the_system_said_is_told() -> None:
    outer = httpx.ConnectError("All connection attempts failed")
    outer.__cause__ = OSError("All connection attempts failed")
    outer.__cause__.__cause__ = ConnectionRefusedError(111, "Connection refused")
    assert describe(outer, CENTRAL) == f"{CENTRAL} can't be reached: Connection refused"
