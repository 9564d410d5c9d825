"""Notifies systemd (`sd_notify`) that the daemon is ready, alive or ending, and of its status. Does nothing without systemd.

The protocol is one datagram to `$NOTIFY_SOCKET` for each message. The unit that enables it is in :mod:`.service_unit`.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Mapping

FEEDS_PER_PERIOD = 3
"""The watchdog is still fed in time if one reply is lost and the next one is late."""


class Notifier:
    """Notifies systemd, if systemd started this process and asked for notifications."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.watchdog_s = _watchdog_s(environ)
        """After how long without a notification systemd restarts the daemon; None: no watchdog."""
        self._address = environ.get("NOTIFY_SOCKET", "")

    def longest_poll_s(self, wanted: float) -> float:
        """Return how long one poll may last so that the watchdog is fed often enough."""
        return wanted if self.watchdog_s is None else min(wanted, self.watchdog_s / FEEDS_PER_PERIOD)

    def notify_ready(self) -> None:
        """Call once the local gateway is open and jobs are adopted, whether or not central can be reached yet."""
        self._send("READY=1")

    def feed_watchdog(self) -> None:
        """Call after each successful exchange with central, and never otherwise: see docs/adr/0006."""
        if self.watchdog_s is not None:
            self._send("WATCHDOG=1")

    def set_status(self, line: str) -> None:
        """Set the line that `systemctl status` shows."""
        self._send("STATUS=" + line.replace("\n", " "))

    def notify_stopping(self) -> None:
        # Not when draining begins: systemd counts `TimeoutStopSec` from here on, and draining may take hours.
        self._send("STOPPING=1")

    def _send(self, line: str) -> None:
        if not self._address:
            return
        # A leading @ means the abstract namespace.
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            sock.setblocking(False)
            sock.sendto(line.encode(), address)


def _watchdog_s(environ: Mapping[str, str]) -> float | None:
    if environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None  # meant for another process; this one inherited its environment
    try:
        period_s = int(environ["WATCHDOG_USEC"]) / 1e6
    except (KeyError, ValueError):
        return None
    return period_s if period_s > 0 else None
