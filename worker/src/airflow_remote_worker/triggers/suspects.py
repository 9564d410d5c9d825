"""Decides which triggers may have killed their host. It uses no process and no clock.

A trigger whose code ends the process ends the other triggers of its host each time. After the second death of hosts of one bundle
within a minute, each trigger of the dead host starts next in a host of its own. Then only the host of the faulty one dies.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable

WITHIN_S = 60.0
REMEMBER_S = 600.0
"""How long a trigger stays suspect. Central offers a trigger again within seconds; later it may be on any worker."""
MOST = 10_000
"""As many as a worker may host."""


class Suspects:
    """Records deaths of hosts, and the triggers that ran in them."""

    def __init__(self) -> None:
        self._died_at: dict[Hashable, float] = {}
        self._until: dict[str, float] = {}

    def note_death(self, code: Hashable, job_ids: Iterable[str], now: float) -> bool:
        """Note that a host of *code* has died with the triggers *job_ids*; return whether they are suspects now."""
        before, self._died_at[code] = self._died_at.get(code), now
        if before is None or now - before > WITHIN_S:
            return False
        self._until = {job_id: until for job_id, until in self._until.items() if until > now}
        for job_id in job_ids:
            if len(self._until) < MOST:
                self._until[job_id] = now + REMEMBER_S
        return True

    def is_suspect(self, job_id: str, now: float) -> bool:
        """Return whether this trigger must start alone."""
        return self._until.get(job_id, 0.0) > now

    def clear(self, job_ids: Iterable[str]) -> None:
        """Clear triggers that have run alone without the death of their host."""
        for job_id in job_ids:
            self._until.pop(job_id, None)
