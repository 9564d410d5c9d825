"""Checks of the address of central that a user gives, before a secret is sent there. Worker and central apply the same ones."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit


class BadAddress(ValueError):
    """Central can't have this address; the text says why, and what to give instead."""


def parse_address(url: str) -> tuple[str, bool]:
    """Return *url* without a slash at its end, and whether nobody can read on the way what is sent there.

    That holds for https, and for plain http to this machine.

    Raises:
        BadAddress: not a web address, or one that contains a user, password, query or fragment.
    """
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018  # raises for a bad port, which urlsplit accepts
    except ValueError as error:
        raise BadAddress(f"this is not a web address ({error}); give one such as https://airflow.example.com") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise BadAddress(f"{url!r} is not a web address; give one such as https://airflow.example.com")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise BadAddress("the address must contain no user, password, query or fragment; leave them out")
    return url.rstrip("/"), parts.scheme == "https" or is_loopback(parts.hostname)


def is_loopback(host: str) -> bool:
    """Return whether *host* is a name or address of this machine."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
