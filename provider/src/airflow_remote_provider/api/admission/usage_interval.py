"""Sets how often workers report their usage: the interval grows with the size of the fleet, which bounds the cost per process."""

from __future__ import annotations

LEAST_S = 10.0
CALLS_PER_S = 25.0
"""Usage reports of all workers of this process."""
WORKER_CALLS_PER_S = 1.0
"""Usage reports of one worker. No honest worker reaches this."""


class UsageInterval:
    """Counts the workers that have reported recently. Used on the event loop only."""

    def __init__(self) -> None:
        self._reported_at: dict[str, float] = {}
        """By worker, oldest first."""

    def note_report(self, worker_id: str, now: float) -> float:
        """Note a report of this worker; return the seconds until its next one."""
        self._reported_at.pop(worker_id, None)
        self._reported_at[worker_id] = now
        every_s = max(LEAST_S, len(self._reported_at) / CALLS_PER_S)
        for other, at in list(self._reported_at.items()):
            if now - at < 2 * every_s:
                break
            del self._reported_at[other]
        return every_s
