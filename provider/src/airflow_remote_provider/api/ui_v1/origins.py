"""Decides which requests may make changes: those with a bearer token, and those of Airflow's own pages with the browser's cookie.

A browser also sends Airflow's cookie with requests from other sites' pages. It names the page's site in headers that no page can
set (`Origin`, `Sec-Fetch-Site`).
"""

from __future__ import annotations

from urllib.parse import urlsplit

from starlette.requests import Request

from airflow_remote_provider import compat

READS = frozenset({"GET", "HEAD", "OPTIONS"})
PORTS = {"http": 80, "https": 443}


def may_act(request: Request) -> bool:
    """Return whether *request* only reads, has a bearer token, or was made by a page of this site."""
    if request.method in READS or _has_token(request):
        return True
    origin = request.headers.get("origin")
    if origin is None:  # browsers send it with everything but reads; some privacy tools remove it
        return request.headers.get("sec-fetch-site") == "same-origin"
    return _is_ours(origin, request)


def _has_token(request: Request) -> bool:
    """Return whether Airflow identifies the user by the header rather than the cookie (`get_user`)."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return scheme.lower() == "bearer" and bool(token.strip())


def _is_ours(origin: str, request: Request) -> bool:
    """Compare *origin* with `[api] base_url`, and with the address that the browser requested.

    Behind a proxy that ends TLS, this request's own scheme is unreliable. A page without TLS can be forged by anyone on the
    network, so an origin with `http` does not match if browsers use `https` as far as we can see.
    """
    try:
        theirs = urlsplit(origin)
        address = (theirs.hostname, theirs.port or PORTS.get(theirs.scheme))
        configured = urlsplit(compat.base_url())
        if theirs.scheme == configured.scheme and address == (
            configured.hostname,
            configured.port or PORTS.get(configured.scheme),
        ):
            return True
        asked = urlsplit(f"//{request.headers.get('host', '')}")
        is_safe = theirs.scheme == "https" or {theirs.scheme, request.url.scheme, configured.scheme or "http"} == {"http"}
        return is_safe and address[0] is not None and address == (asked.hostname, asked.port or PORTS.get(theirs.scheme))
    except ValueError:  # an invalid port or host
        return False
