"""Explains failures between this worker and central: what probably answered instead, what probably cut the connection.

The texts are guesses for operators. The worker makes no decisions by them: for it all these failures are *unreachable*.
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
"""The name of the API in texts."""
EXPIRED, NOT_YET_VALID, OTHER_NAME, OTHER_ADDRESS = 10, 9, 62, 64
"""OpenSSL's X509_V_ERR_… codes."""


def diagnose(response: httpx.Response, page: bytes, *, central: str, proxy: Proxy | None = None) -> str:
    """Return a text on what probably sent *response*, which begins with *page*, instead of central."""
    kind = response.headers.get("content-type", "").partition(";")[0] or "no content type"
    title = _title(page)
    what = f"{central} answered {response.status_code} {kind}, but not as central's remote API does"
    if title:
        what += f" (its page is titled {title!r})"
    status = response.status_code
    if response.is_redirect:
        return f"{what}: {_redirect(response, central)}"
    if status == 407:
        schemes = ", ".join(scheme.split()[0] for scheme in response.headers.get_list("proxy-authenticate") if scheme.split())
        return f"{what}: {explain_refusal(status, response.reason_phrase, central=central, proxy=proxy, schemes=schemes)}"
    if status in (400, 495, 496) and "certificate" in title.lower():
        return f"{what}: the web server requires a client certificate that it trusts; set client_cert and client_key"
    if "plain HTTP request was sent to HTTPS port" in title:
        return f"{what}: this port expects https; use an address that begins with https"
    if status in (405, 501):
        return f"{what}: a proxy or firewall blocks {response.request.method} requests; ask for a rule that allows them for {API}"
    if status in (408, 504, 524):
        return f"{what}: a load balancer or proxy ended a long request, or can't reach central; raise its read timeout"
    if status in (502, 503):
        return f"{what}: a load balancer can't reach central"
    if status == 403:
        return f"{what}: a proxy or firewall forbids this address; ask for a rule that allows {API} with every method"
    if kind == "text/html":
        return f"{what}: a proxy's login page, or a web server without {API}; check the address and its sub-path"
    return f"{what}; check the address and its sub-path, and that the provider is installed in central's API server"


def describe(error: Exception, central: str, proxy: Proxy | None = None) -> str:
    """Return a text on why a request to central got no answer."""
    parts = urlsplit(central)
    tls = next((cause for cause in causes(error) if isinstance(cause, ssl.SSLError)), None)
    if isinstance(error, httpx.ProxyError):
        status, _, reason = str(error).partition(" ")
        return explain_refusal(int(status) if status.isdigit() else 0, reason, central=central, proxy=proxy)
    if isinstance(tls, ssl.SSLCertVerificationError):
        cause = tls.verify_message or tls
        return f"the certificate of {parts.hostname} is not trusted ({cause}); `airflow-remote-worker check` shows its issuer"
    if tls is not None:
        return explain_tls(tls, parts.hostname or "", parts.port or 443)
    if proxy and isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
        return f"the proxy {proxy} ({proxy.source}) can't be reached: {_root_cause(error) or 'no answer in time'}"
    unresolved = next((cause for cause in causes(error) if isinstance(cause, socket.gaierror)), None)
    if unresolved is not None:
        return explain_no_address(parts.hostname or "", unresolved, None)
    if isinstance(error, httpx.ConnectTimeout):
        return f"{central} did not accept the connection in time"
    if isinstance(error, httpx.TimeoutException):
        return f"{central} did not answer in time ({type(error).__name__})"
    if isinstance(error, httpx.ReadError | httpx.WriteError | httpx.RemoteProtocolError):
        return f"the connection to {central} was cut ({str(error) or type(error).__name__})"
    return f"{central} can't be reached: {_root_cause(error) or type(error).__name__}"


def explain_no_address(host: str, error: Exception, proxy: Proxy | None) -> str:
    """Return a text on a host name that has no address. *proxy*: the host is this proxy, not central."""
    if proxy:
        return f"the proxy's name {host} has no address ({error}); check it ({proxy.source}), and this machine's resolver"
    return (
        f"{host} has no address ({error}); check the name and this machine's resolver. If this machine reaches other networks "
        "only through a proxy, name it: --proxy http://proxy.example.com:3128, the variable HTTPS_PROXY, or the setting proxy"
    )


LOGIN_REMEDY = "put user and password into the proxy's URL, or name a file that holds them with proxy_auth_file"


def explain_refusal(status: int, reason: str, *, central: str, proxy: Proxy | None, schemes: str = "") -> str:
    """Return a text on why *proxy* did not open a tunnel. *schemes*: the login schemes that it offers."""
    parts = urlsplit(central)
    target = f"{parts.hostname}:{parts.port or 443}"
    who = f"the proxy {proxy}" if proxy else "the proxy"
    shown = f"({status} {reason})" if status else f"({reason or 'no reason given'})"
    if status == 407 and schemes and "basic" not in schemes.lower():
        return (
            f"{who} requires a login by {schemes}, which this worker doesn't support; ask for an exception or for Basic, or run "
            "a local proxy that logs in, such as cntlm"
        )
    if status == 407 and proxy and proxy.auth:
        return f"{who} refuses user {proxy.auth[0]!r} with this password {shown}; correct them in its URL or in proxy_auth_file"
    if status == 407:
        return f"{who} requires a login {shown}; {LOGIN_REMEDY}"
    if status >= 500:
        return f"{who} can't reach {target} {shown}; check that this name and port are right and open to the proxy"
    if status in (0, 400, 404, 405):
        return f"{who} opens no tunnel {shown}; check that it is an HTTP proxy and that its port is right"
    return f"{who} refused the connection to {target} {shown}; ask for a rule that allows CONNECT there"


def explain_distrust(error: ssl.SSLCertVerificationError, host: str, *, issuer: str, subject: str, valid: str) -> str:
    """Return a text on why a certificate with this content isn't trusted."""
    if error.verify_code in (EXPIRED, NOT_YET_VALID):
        return f"the certificate of {host} is valid only {valid}; renew it, or set this machine's clock"
    if error.verify_code in (OTHER_NAME, OTHER_ADDRESS):
        return f"the certificate of {host} was issued for another name ({subject}); use the name in the certificate"
    return (
        f"the certificate of {host} was issued by {issuer}, which this machine does not trust ({error.verify_message}); if a "
        "proxy inspects TLS, or central has a private authority, install that authority's certificate here or name its file "
        "with --ca-file (the setting ca_file)"
    )


def explain_tls(error: ssl.SSLError, host: str, port: int) -> str:
    """Return a text on why TLS failed, except for untrusted certificates."""
    if _requires_client_certificate(error):
        return (
            f"{host} refuses TLS without a client certificate that it trusts ({_reason(error)}); set client_cert and client_key"
        )
    if _reason(error).endswith(("unsupported protocol", "protocol version")):
        return f"{host} does not support TLS 1.2 or newer ({_reason(error)}); update it"
    return f"TLS with {host}:{port} failed ({_reason(error)}); check port and address"


def _root_cause(error: Exception) -> str:
    """Return the operating system's error, which is more specific than "all connection attempts failed"."""
    found = [cause.strerror for cause in causes(error) if isinstance(cause, OSError) and cause.strerror]
    return found[-1] if found else str(error)


def _requires_client_certificate(error: ssl.SSLError) -> bool:
    reason = _reason(error).upper().replace(" ", "_")
    return "CERTIFICATE_REQUIRED" in reason or ("ALERT" in reason and "CERTIFICATE" in reason) or "ALERT_UNKNOWN_CA" in reason


def _reason(error: ssl.SSLError) -> str:
    # Some errors have no reason: they are made from a text.
    return (getattr(error, "reason", None) or str(error)).lower().replace("_", " ")


def _redirect(response: httpx.Response, central: str) -> str:
    target = urljoin(str(response.request.url), response.headers.get("location", ""))[:200]
    here, there = urlsplit(central), urlsplit(target)
    if there.hostname != here.hostname:
        return f"a redirect to {target}, which workers don't follow; either a proxy's login page, or the address has changed"
    if (here.scheme, there.scheme) == ("http", "https"):
        return f"a redirect to {target}; central requires https: use an address that begins with https"
    return f"a redirect to {target}; a login page in front of central ({API} must be reachable without it), or another sub-path"


def _title(page: bytes) -> str:
    found = re.search(rb"<title[^>]*>(.*?)</title", page, re.IGNORECASE | re.DOTALL)
    if not found:
        return ""
    text = " ".join(html.unescape(found.group(1).decode("utf-8", "replace")).split())
    return "".join(c for c in text if c.isprintable())[:100]
