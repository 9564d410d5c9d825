"""Addresses of central as people give them: what they must be before a secret is sent there. Both ends ask the same of them."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit


class BadAddress(ValueError):
    """No address that central can have; the text says why, and what to give instead."""


def checked_address(url: str) -> tuple[str, bool]:
    """Return *url* without a slash at its end, and whether what is sent there is safe from who listens on the way.

    Safe: https, or plain http to this very machine.

    Raises:
        BadAddress: not a web address, or one that holds more than where central is.
    """
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018  # raises what urlsplit itself lets pass
    except ValueError as error:
        raise BadAddress(f"this is not a web address ({error}); give one such as https://airflow.example.com") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise BadAddress(f"{url!r} is not a web address; give one such as https://airflow.example.com")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise BadAddress("the address must hold no user, password, query or fragment; leave them out")
    return url.rstrip("/"), parts.scheme == "https" or is_loopback(parts.hostname)


def is_loopback(host: str) -> bool:
    """Say whether *host* is this very machine, by its name or address."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
