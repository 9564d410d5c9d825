"""Whether a worker can be reached, as central sees it."""

from __future__ import annotations

from enum import Enum


class Presence(str, Enum):
    """Derived from a worker's contacts; never stored, and independent of what administrators want of the worker (intent)."""

    ONLINE = "online"
    SILENT = "silent"
    """It has a session, and central has not received anything from it for longer than the silence limit."""
    OFFLINE = "offline"
    """It ended its session itself."""
    NEVER_CONNECTED = "never_connected"
    GONE = "gone"
    """Its credential is revoked."""
