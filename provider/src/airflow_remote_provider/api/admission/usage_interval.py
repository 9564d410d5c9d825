"""How often workers tell what they use: the more of them do, the seldomer, so that it costs one process only so much."""

from __future__ import annotations

LEAST_S = 10.0
CALLS_PER_S = 25.0
"""Of all workers of this process."""
WORKER_CALLS_PER_S = 1.0
"""Of one worker: no honest one comes near."""


class UsageInterval:
    """Counts who has told lately. Asked on the event loop only."""

    def __init__(self) -> None:
        self._told: dict[str, float] = {}
        """By worker: when, in its order."""

    def next_s(self, worker_id: str, now: float) -> float:
        """Note that this worker has told; return after how many seconds it may again."""
        self._told.pop(worker_id, None)
        self._told[worker_id] = now
        every_s = max(LEAST_S, len(self._told) / CALLS_PER_S)
        for other, at in list(self._told.items()):
            if now - at < 2 * every_s:
                break
            del self._told[other]
        return every_s
