"""Notices jobs that fail before their own code begins, one after the other: a machine that would fail whatever it is given.

Decides only. What its reasons mean for offers is :mod:`.runtime`'s and the session's.
"""

from __future__ import annotations

LIMIT = 3
"""Failures in a row. Fewer may be one broken Dag file."""
FIRST_PAUSE_S = 60.0
LONGEST_PAUSE_S = 900.0


class Breaker:
    """Opens after :data:`LIMIT` such failures, then after each further one; a job whose code begins closes it."""

    def __init__(self) -> None:
        self.failures = 0
        """In a row."""

    @property
    def is_closed(self) -> bool:
        return self.failures < LIMIT

    @property
    def pause_s(self) -> float:
        """How long to take no job after the last failure."""
        return min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(max(0, self.failures - LIMIT), 10))

    def note_begun(self) -> None:
        """A job's own code has begun."""
        self.failures = 0

    def note_failure(self) -> bool:
        """A job has failed before that; return whether to take no job for a while."""
        self.failures += 1
        return not self.is_closed
