"""Tracks how long this process has observed the fleet without a break. It has no database, no loop and no clock of its own.

A silence counts against a worker only if central could have received its calls. Central's own downtime, an unavailable or
restored database, a suspended machine and a changed database clock restart the window. The machine's monotonic clock measures it.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

BREAK_S = 25.0
"""A longer gap between two looks restarts the window. The duty lasts as long."""
CLOCK_SET_S = 5.0
"""By how much the database's clock may differ from ours between two looks: less than the least margin by which a worker stops
first."""


class ObservationWindow:
    """Starts with the first look. A process that takes over the duty starts its own."""

    def __init__(self, window_s: float, monotonic: Callable[[], float]) -> None:
        self._window_s = window_s
        self._monotonic = monotonic
        self._began: float | None = None
        self._last: tuple[float, datetime] | None = None

    def look(self, database: datetime) -> bool:
        """Note a successful query of the database at *database*, by its clock. Return whether the window continues."""
        now, last = self._monotonic(), self._last
        self._last = now, database
        if last is not None and self._began is not None:
            passed_s = now - last[0]
            if passed_s <= BREAK_S and abs((database - last[1]).total_seconds() - passed_s) <= CLOCK_SET_S:
                return True
        self._began = now
        return False

    def end(self) -> None:
        """Stop observing: another process has the duty, or the database is unavailable."""
        self._began = self._last = None

    @property
    def has_lasted(self) -> bool:
        """Whether every live worker has had time to reconnect."""
        return self._began is not None and self._monotonic() - self._began >= self._window_s
