"""Which requests may change something: those with a bearer token, and with the browser's cookie those from our own pages.

A browser sends Airflow's cookie with requests that other sites' pages make, too. It also says which page makes them, in headers
that no page can set (`Origin`, `Sec-Fetch-Site`).
"""

from __future__ import annotations

from urllib.parse import urlsplit

from starlette.requests import Request

from airflow_remote_provider import compat

READS = frozenset({"GET", "HEAD", "OPTIONS"})
PORTS = {"http": 80, "https": 443}


def may_act(request: Request) -> bool:
    """Return whether *request* reads only, comes with a bearer token, or was made by a page of this very site."""
    if request.method in READS or _has_token(request):
        return True
    origin = request.headers.get("origin")
    if origin is None:  # browsers send it with everything but reads; some privacy tools remove it
        return request.headers.get("sec-fetch-site") == "same-origin"
    return _is_ours(origin, request)


def _has_token(request: Request) -> bool:
    """Whether Airflow takes the header, not the cookie, to say whose request this is (`get_user`)."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return scheme.lower() == "bearer" and bool(token.strip())


def _is_ours(origin: str, request: Request) -> bool:
    """Compare with `[api] base_url`, and with the address that the browser asked for.

    Behind a proxy that ends TLS this request's own scheme says nothing. A page without TLS could be written by anyone on the
    network, so an origin of `http` is no match where browsers use `https` as far as we can see.
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
    except ValueError:  # a port that is no number, a host that is no address
        return False
