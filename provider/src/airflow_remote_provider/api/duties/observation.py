"""How long this process has watched the fleet without a break. Decides only: no database, no loop.

A silence counts against a worker only if central was there to hear it. Central's own downtime, a database that was away or
restored, a machine that slept, and a database clock that was set all begin the vigil anew. It is measured by this machine's
monotonic clock.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime

BREAK_S = 25.0
"""Looks further apart than this are no vigil: as long as the duty lasts."""
CLOCK_SET_S = 5.0
"""By how much the database's clock may differ from ours between two looks: less than the least margin by which a worker stops
first."""


class Vigil:
    """Begins with the first look; whoever takes the duty over begins one of his own."""

    def __init__(self, window_s: float, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._window_s = window_s
        self._monotonic = monotonic
        self._began: float | None = None
        self._last: tuple[float, datetime] | None = None

    def look(self, database: datetime) -> bool:
        """Note a good look at the database, whose clock says *database*. False: the vigil has only begun with it."""
        now, last = self._monotonic(), self._last
        self._last = now, database
        if last is not None and self._began is not None:
            passed_s = now - last[0]
            if passed_s <= BREAK_S and abs((database - last[1]).total_seconds() - passed_s) <= CLOCK_SET_S:
                return True
        self._began = now
        return False

    def end(self) -> None:
        """We no longer watch: another process does, or the database is away."""
        self._began = self._last = None

    @property
    def has_lasted(self) -> bool:
        """Every worker that is alive had time to come back."""
        return self._began is not None and self._monotonic() - self._began >= self._window_s
