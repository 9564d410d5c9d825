"""A circuit breaker: counts consecutive jobs that fail before their own code begins. On such a machine every job would fail.

Only decides. :mod:`.runtime` and the session turn its decisions into fewer offers.
"""

from __future__ import annotations

LIMIT = 3
"""Consecutive failures. Fewer may be one broken Dag file."""
FIRST_PAUSE_S = 60.0
LONGEST_PAUSE_S = 900.0


class Breaker:
    """Opens after :data:`LIMIT` such failures and after each further one. Closes when the code of a job begins."""

    def __init__(self) -> None:
        self.failures = 0
        """Consecutive ones."""

    @property
    def is_closed(self) -> bool:
        return self.failures < LIMIT

    @property
    def pause_s(self) -> float:
        """How long to take no jobs after the last failure."""
        return min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(max(0, self.failures - LIMIT), 10))

    def note_begun(self) -> None:
        """Note that a job's own code has begun."""
        self.failures = 0

    def note_failure(self) -> bool:
        """Note that a job has failed before its own code began; return whether to take no jobs for a while."""
        self.failures += 1
        return not self.is_closed
