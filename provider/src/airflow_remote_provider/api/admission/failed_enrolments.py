"""Limits failed enrolments: counted by source, in this process, for a minute at a time.

A token has 256 random bits and can't be guessed. The limit keeps attempts from costing the database and filling the audit.
"""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Callable

from airflow_remote_protocol.errors import ProblemCode

from airflow_remote_provider.api.problems import Refusal

WINDOW_S = 60.0
SOURCES = 256
"""This many sources are counted separately in a minute; all others count as one, so that memory is bounded."""
OTHERS = "others"


class FailedEnrolments:
    """Failed enrolments of the current minute."""

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._clock = clock
        self._began = clock()
        self._failed: dict[str, int] = {}

    def check_attempts(self, source: str) -> None:
        """Check that *source* may try to enrol.

        Raises:
            Refusal: `busy`, until the minute is over.
        """
        if self._failed_of(source) >= self._most:
            left_s = max(1.0, self._began + WINDOW_S - self._clock())
            raise Refusal(
                ProblemCode.BUSY, f"too many failed attempts to join from {source}; try again later", retry_after_s=left_s
            )

    def note_failure(self, source: str) -> None:
        failed = self._failed_of(source) + 1
        self._failed[self._key(source)] = failed

    def _failed_of(self, source: str) -> int:
        if self._clock() - self._began >= WINDOW_S:
            self._began, self._failed = self._clock(), {}
        return self._failed.get(self._key(source), 0)

    def _key(self, source: str) -> str:
        network = network_of(source)
        return network if network in self._failed or len(self._failed) < SOURCES else OTHERS


def network_of(source: str) -> str:
    """Return the part of the address that belongs to one sender: an IPv4 address, or an IPv6 network of 64 bits."""
    try:
        address = ipaddress.ip_address(source)
    except ValueError:
        return OTHERS
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is None:
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(getattr(address, "ipv4_mapped", None) or address)
