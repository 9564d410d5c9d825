"""Bounds the lists of jobs that a worker sends: as long as what central has leased to it, and little more.

An honest worker may send a longer list once: its jobs were given to others while it was silent, or this process has just started
and does not know yet what the worker holds. A longer list therefore counts as many calls, and is refused only when it comes again
and again. Asked on the event loop only.
"""

from __future__ import annotations

from collections import OrderedDict

from airflow_remote_provider.api.admission.rate_limits import RateLimits

BYTES_PER_JOB = 128
"""Of one job in a list: an id of 64 characters, an epoch, a phase."""
FREE_JOBS = 100
"""In any list. So many are looked up by their ids (:data:`..ledger.fence.LOOKED_UP`)."""
BYTES_PER_CALL = 512
"""So many bytes beyond that count as one call: a list of 10,000 unknown jobs as some 1,500 calls. `calls_per_second` allows 200 a
second, and 2,000 at once."""
MOST_KEPT = 10_000
"""Workers whose leases are remembered, if they have more than the free ones."""


class JobLists:
    """Of all workers of this process."""

    def __init__(self, shares: RateLimits) -> None:
        self._shares = shares
        self._leased: OrderedDict[str, int] = OrderedDict()

    def take(self, worker_id: str, size: int) -> None:
        """Count a list of *size* bytes, before it is read.

        Raises:
            Refusal: `busy`: the worker sends lists that are too long, too often.
        """
        free = (FREE_JOBS + self._leased.get(worker_id, 0)) * BYTES_PER_JOB
        if size > free:
            self._shares.take(worker_id, cost=(size - free) / BYTES_PER_CALL)

    def note(self, worker_id: str, leased: int) -> None:
        """Remember how many jobs the ledger has leased to this worker."""
        self._leased.pop(worker_id, None)
        if leased > FREE_JOBS:
            self._leased[worker_id] = leased
        while len(self._leased) > MOST_KEPT:
            self._leased.popitem(last=False)
