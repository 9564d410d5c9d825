"""Seconds since the machine started, the same clock for the daemon and its shims: one counts on where the other stopped."""

from __future__ import annotations

import time

_BOOT_CLOCK: int | None = getattr(time, "CLOCK_BOOTTIME", None)


def now() -> float:
    """Seconds that never run backwards and go on while the machine is suspended; comparable until the next reboot."""
    # CLOCK_MONOTONIC stands still while a laptop sleeps; central's `lost_after` doesn't.
    return time.monotonic() if _BOOT_CLOCK is None else time.clock_gettime(_BOOT_CLOCK)
