"""Whether central is in contact with a worker."""

from __future__ import annotations

from enum import Enum


class Presence(str, Enum):
    """Derived from the worker's contacts; never stored, and independent of the worker's intent."""

    ONLINE = "online"
    SILENT = "silent"
    """It has a session, and central has not received anything from it for longer than the silence limit."""
    OFFLINE = "offline"
    """It ended its session itself."""
    NEVER_CONNECTED = "never_connected"
    GONE = "gone"
    """Its credential is revoked."""
