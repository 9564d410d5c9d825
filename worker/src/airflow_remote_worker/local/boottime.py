"""Seconds since the machine started: one clock for the daemon and its shims, so that their times can be compared."""

from __future__ import annotations

import time

_BOOT_CLOCK: int | None = getattr(time, "CLOCK_BOOTTIME", None)


def now() -> float:
    """Return seconds that never run backwards and go on while the machine is suspended; comparable until the next reboot."""
    # CLOCK_MONOTONIC stops while a laptop sleeps; central's `lost_after` goes on.
    return time.monotonic() if _BOOT_CLOCK is None else time.clock_gettime(_BOOT_CLOCK)
