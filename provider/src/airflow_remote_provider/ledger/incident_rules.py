"""Decides when a condition begins an incident, and when the incident has recovered. No database, no clock of its own.

An incident begins once the condition was found for its delay, and recovers once the condition was absent for a while, so that
a connection that comes and goes is one incident.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import Enum


class IncidentKind(str, Enum):
    """What is wrong."""

    WORKER_SILENT = "worker-silent"
    WORKER_FLAGGED = "worker-flagged"
    """A copy of a worker, a replayed credential, or another alarm that central has set."""
    CREDENTIAL_ENDING = "credential-ending"
    DISK_FULL = "disk-full"
    QUEUE_UNSERVED = "queue-unserved"
    """Jobs wait and no worker takes them."""
    JOB_WAITING = "job-waiting"
    """The oldest job of a queue waits for too long."""
    ROLLOUT_HALTED = "rollout-halted"


BEGINS_AFTER_S: Mapping[IncidentKind, float] = {IncidentKind.QUEUE_UNSERVED: 60.0}
"""How long a condition must last, beyond what its reader requires. A worker that a scaler starts for a queue needs a minute."""
RECOVERS_AFTER_S = 30.0
"""How long a condition must be absent: three looks."""
MOST_OPEN = 1000
"""Open incidents. A fleet of which more fails has one cause."""


@dataclass(frozen=True)
class Condition:
    """Something that needs an operator, found now."""

    kind: IncidentKind
    subject: str
    text: str
    team: str | None = None

    @property
    def key(self) -> str:
        """Identifies it among the open incidents: a hash, because names of queues are longer than an index allows."""
        return hashlib.sha256("\0".join((self.kind.value, self.team or "", self.subject)).encode()).hexdigest()


@dataclass(frozen=True)
class Decision:
    """What to change in the table of incidents."""

    begun: list[Condition]
    lasting: list[str]
    """Keys of open incidents whose condition was found again."""
    recovered: list[str]
    """Keys."""


class IncidentRules:
    """Remembers since when conditions are found or absent. Another process that takes over starts to count again."""

    def __init__(self) -> None:
        self._found_since: dict[str, tuple[IncidentKind, float]] = {}
        """By key, of conditions that are no incident yet."""
        self._absent_since: dict[str, float] = {}

    def decide(
        self,
        found: Collection[Condition],
        known: Mapping[str, IncidentKind],
        *,
        looked_at: Collection[IncidentKind],
        now_s: float,
        may_begin: bool,
    ) -> Decision:
        """Return what to change.

        Args:
            known: the open incidents, by key.
            looked_at: the kinds of conditions that *found* covers; others are not judged.
            now_s: of a monotonic clock.
            may_begin: whether central has observed the fleet long enough to know that a condition is not its own absence.
        """
        by_key = {one.key: one for one in found}
        open_ones = {key for key, kind in known.items() if kind in looked_at}
        self._found_since = {
            key: (kind, since) for key, (kind, since) in self._found_since.items() if key in by_key or kind not in looked_at
        }
        begun: list[Condition] = []
        for key, one in by_key.items():
            if key in known:
                continue
            _, since = self._found_since.setdefault(key, (one.kind, now_s))
            is_due = now_s - since >= BEGINS_AFTER_S.get(one.kind, 0.0)
            if may_begin and is_due and len(known) + len(begun) < MOST_OPEN:
                begun.append(one)
        recovered: list[str] = []
        for key in open_ones - by_key.keys():
            if now_s - self._absent_since.setdefault(key, now_s) >= RECOVERS_AFTER_S:
                recovered.append(key)
        self._absent_since = {
            key: since for key, since in self._absent_since.items() if key in known and key not in by_key and key not in recovered
        }
        for one in begun:
            self._found_since.pop(one.key, None)
        return Decision(begun, sorted(open_ones & by_key.keys()), sorted(recovered))
