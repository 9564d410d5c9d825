"""What the daemon tells systemd (`sd_notify`): ready, alive, how it goes, ending. Silent where nobody listens.

A datagram to `$NOTIFY_SOCKET` is the whole protocol. The unit that asks for it is :mod:`.service`'s.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Mapping

FEEDS_PER_PERIOD = 3
"""One reply may be lost and the next be late, and the watchdog still hears of us in time."""


class Notifier:
    """Tells systemd, if systemd started this very process and asked for it."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.watchdog_s = _watchdog_s(environ)
        """How long systemd waits for a sign of life before it restarts us; None: it doesn't watch."""
        self._address = environ.get("NOTIFY_SOCKET", "")

    def longest_poll_s(self, wanted: float) -> float:
        """Return how long one poll may last so that good contacts come often enough for the watchdog."""
        return wanted if self.watchdog_s is None else min(wanted, self.watchdog_s / FEEDS_PER_PERIOD)

    def serving(self) -> None:
        """Told once the local gateway is open and jobs are adopted, whether or not central can be reached yet."""
        self._tell("READY=1")

    def good_contact(self) -> None:
        """Feed the watchdog. Nothing else does: see docs/adr/0006."""
        if self.watchdog_s is not None:
            self._tell("WATCHDOG=1")

    def status(self, line: str) -> None:
        """Set the line that `systemctl status` shows."""
        self._tell("STATUS=" + line.replace("\n", " "))

    def ending(self) -> None:
        # Only when we really go: from here on systemd counts `TimeoutStopSec`, and draining may take hours.
        self._tell("STOPPING=1")

    def _tell(self, line: str) -> None:
        if not self._address:
            return
        # A leading @ stands for the abstract namespace.
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            sock.setblocking(False)
            sock.sendto(line.encode(), address)


def _watchdog_s(environ: Mapping[str, str]) -> float | None:
    if environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None  # meant for another process, whose environment we have inherited
    try:
        period_s = int(environ["WATCHDOG_USEC"]) / 1e6
    except (KeyError, ValueError):
        return None
    return period_s if period_s > 0 else None
