"""Says in words what went wrong on the way to central: who probably answered in its place, what probably cut the connection.

Guesses, for people. Nothing decides by them: to the worker all of it is *unreachable*.
"""

from __future__ import annotations

import html
import re
import socket
import ssl
from urllib.parse import urljoin, urlsplit

import httpx

from airflow_remote_worker.link.network import Proxy, causes

API = "/remote/v1"
"""How the API is called in what people read."""
EXPIRED, NOT_YET_VALID, OTHER_NAME, OTHER_ADDRESS = 10, 9, 62, 64
"""OpenSSL's X509_V_ERR_… codes."""


def diagnose(response: httpx.Response, page: bytes, central: str, proxy: Proxy | None = None) -> str:
    """Say what probably sent *response*, which begins with *page*, instead of central."""
    kind = response.headers.get("content-type", "").partition(";")[0] or "no content type"
    title = _title(page)
    what = f"{central} answered {response.status_code} {kind} by something that is not central's remote API"
    if title:
        what += f" (its page is titled {title!r})"
    status = response.status_code
    if response.is_redirect:
        return f"{what}: {_redirect(response, central)}"
    if status == 407:
        schemes = ", ".join(scheme.split()[0] for scheme in response.headers.get_list("proxy-authenticate") if scheme.split())
        return f"{what}: {explain_refusal(status, response.reason_phrase, central, proxy, schemes=schemes)}"
    if status in (400, 495, 496) and "certificate" in title.lower():
        return f"{what}: a web server that wants a client certificate which it trusts; set client_cert and client_key"
    if "plain HTTP request was sent to HTTPS port" in title:
        return f"{what}: the port of an https address; use an address that begins with https"
    if status in (405, 501):
        return f"{what}: something on the way lets no {response.request.method} pass; ask for a rule that allows it for {API}"
    if status in (408, 504, 524):
        return f"{what}: a load balancer or proxy whose patience with silent requests ended, or that can't reach central"
    if status in (502, 503):
        return f"{what}: a load balancer that can't reach central"
    if status == 403:
        return f"{what}: a proxy or firewall that forbids this address; ask for a rule that allows {API}, for every method"
    if kind == "text/html":
        return f"{what}: a proxy's login page, or a web server that knows no {API}; check the address and its sub-path"
    return f"{what}; check the address and its sub-path, and that the provider is installed in central's API server"


def describe(error: Exception, central: str, proxy: Proxy | None = None) -> str:
    """Say what went wrong on the way to central, before anybody answered."""
    parts = urlsplit(central)
    tls = next((cause for cause in causes(error) if isinstance(cause, ssl.SSLError)), None)
    if isinstance(error, httpx.ProxyError):
        status, _, reason = str(error).partition(" ")
        return explain_refusal(int(status) if status.isdigit() else 0, reason, central, proxy)
    if isinstance(tls, ssl.SSLCertVerificationError):
        told = tls.verify_message or tls
        return f"the certificate of {parts.hostname} is not trusted ({told}); `airflow-remote-worker check` says who signed it"
    if tls is not None:
        return explain_tls(tls, parts.hostname or "", parts.port or 443)
    if proxy and isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
        return f"the proxy {proxy} ({proxy.source}) can't be reached: {_deepest(error) or 'no answer in time'}"
    unresolved = next((cause for cause in causes(error) if isinstance(cause, socket.gaierror)), None)
    if unresolved is not None:
        return explain_no_address(parts.hostname or "", unresolved, None)
    if isinstance(error, httpx.ConnectTimeout):
        return f"{central} did not take the connection in time"
    if isinstance(error, httpx.TimeoutException):
        return f"{central} did not answer in time ({type(error).__name__})"
    if isinstance(error, httpx.ReadError | httpx.WriteError | httpx.RemoteProtocolError):
        return f"the connection to {central} was cut ({str(error) or type(error).__name__})"
    return f"{central} can't be reached: {_deepest(error) or type(error).__name__}"


def explain_no_address(host: str, error: Exception, proxy: Proxy | None) -> str:
    """Say that a name has no address. *proxy*: the name is this proxy's, not central's."""
    if proxy:
        return f"the proxy's name {host} has no address ({error}); check it ({proxy.source}), and this machine's resolver"
    return (
        f"{host} has no address ({error}); check the name and this machine's resolver. If this machine reaches other networks "
        "only through a proxy, name it: --proxy http://proxy.example.com:3128, the variable HTTPS_PROXY, or the setting proxy"
    )


LOGIN_REMEDY = "put user and password into the proxy's URL, or name a file that holds them with proxy_auth_file"


def explain_refusal(status: int, reason: str, central: str, proxy: Proxy | None, *, schemes: str = "") -> str:
    """Say why *proxy* did not open a tunnel; *schemes* are the ways to log in that it offers."""
    parts = urlsplit(central)
    target = f"{parts.hostname}:{parts.port or 443}"
    who = f"the proxy {proxy}" if proxy else "the proxy"
    told = f"({status} {reason})" if status else f"({reason or 'no reason given'})"
    if status == 407 and schemes and "basic" not in schemes.lower():
        return (
            f"{who} wants a login by {schemes}, which this worker doesn't speak; ask for an exception or for Basic, or run a "
            "local proxy that logs in, such as cntlm"
        )
    if status == 407 and proxy and proxy.auth:
        return (
            f"{who} does not accept user {proxy.auth[0]!r} and its password {told}; correct them in its URL or in proxy_auth_file"
        )
    if status == 407:
        return f"{who} wants a login {told}; {LOGIN_REMEDY}"
    if status >= 500:
        return f"{who} can't reach {target} itself {told}; ask whether that name and port are right and open from there"
    if status in (0, 400, 404, 405):
        return f"{who} opens no tunnels {told}; is it an HTTP proxy, and this its port?"
    return f"{who} refused the way to {target} {told}; ask for a rule that allows CONNECT there"


def distrust(error: ssl.SSLCertVerificationError, host: str, *, issuer: str, subject: str, valid: str) -> str:
    """Say why a certificate whose content is known isn't trusted."""
    if error.verify_code in (EXPIRED, NOT_YET_VALID):
        return f"the certificate of {host} is valid {valid} only; renew it, or set this machine's clock"
    if error.verify_code in (OTHER_NAME, OTHER_ADDRESS):
        return f"the certificate there is for another name ({subject}), not for {host}; use the name that it is for"
    return (
        f"the certificate of {host} was issued by {issuer}, whom this machine does not trust ({error.verify_message}); if a "
        "proxy inspects TLS, or central has a private authority, install its certificate here or name its file with --ca-file "
        "(the setting ca_file)"
    )


def explain_tls(error: ssl.SSLError, host: str, port: int) -> str:
    """Say why there is no TLS, when it isn't a matter of trust."""
    if _wants_certificate(error):
        return (
            f"{host} refuses TLS without a client certificate that it trusts ({_reason(error)}); set client_cert and client_key"
        )
    if _reason(error).endswith(("unsupported protocol", "protocol version")):
        return f"{host} speaks no TLS of version 1.2 or newer ({_reason(error)}); it has to be updated"
    return f"no TLS with {host}:{port} ({_reason(error)}); check port and address"


def _deepest(error: Exception) -> str:
    """What the system said, rather than "all connection attempts failed"."""
    said = [cause.strerror for cause in causes(error) if isinstance(cause, OSError) and cause.strerror]
    return said[-1] if said else str(error)


def _wants_certificate(error: ssl.SSLError) -> bool:
    reason = _reason(error).upper().replace(" ", "_")
    return "CERTIFICATE_REQUIRED" in reason or ("ALERT" in reason and "CERTIFICATE" in reason) or "ALERT_UNKNOWN_CA" in reason


def _reason(error: ssl.SSLError) -> str:
    # Not every one has a reason: some are made from a text alone.
    return (getattr(error, "reason", None) or str(error)).lower().replace("_", " ")


def _redirect(response: httpx.Response, central: str) -> str:
    target = urljoin(str(response.request.url), response.headers.get("location", ""))[:200]
    here, there = urlsplit(central), urlsplit(target)
    if there.hostname != here.hostname:
        return f"a redirect to {target}, which no worker follows; a proxy's login page, or the address has moved"
    if (here.scheme, there.scheme) == ("http", "https"):
        return f"a redirect to {target}; central wants https: use an address that begins with it"
    return f"a redirect to {target}; a login page in front of central ({API} must pass without one), or another sub-path"


def _title(page: bytes) -> str:
    found = re.search(rb"<title[^>]*>(.*?)</title", page, re.IGNORECASE | re.DOTALL)
    if not found:
        return ""
    text = " ".join(html.unescape(found.group(1).decode("utf-8", "replace")).split())
    return "".join(c for c in text if c.isprintable())[:100]
