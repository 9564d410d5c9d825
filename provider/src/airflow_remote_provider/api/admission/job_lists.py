"""Limits the length of the job lists that a worker sends to little more than the jobs that central has leased to it.

An honest worker may send a longer list once: its jobs were given to others while it was silent, or this process has just started
and does not know yet what the worker holds. A longer list therefore counts as many calls, and is refused only if it is sent
repeatedly. Used on the event loop only.
"""

from __future__ import annotations

from collections import OrderedDict

from airflow_remote_provider.api.admission.rate_limits import RateLimits

BYTES_PER_JOB = 128
"""The size of one job in a list: an id of 64 characters, an epoch, a phase."""
FREE_JOBS = 100
"""Jobs that any list may have. This many are looked up by their ids (:data:`..ledger.fence.MOST_LOOKED_UP`)."""
BYTES_PER_CALL = 512
"""This many further bytes count as one call: a list of 10,000 unknown jobs counts as some 1,500 calls. `calls_per_second` allows
200 per second, and 2,000 at once."""
MOST_KEPT = 10_000
"""Workers whose number of leases is remembered, if it is more than :data:`FREE_JOBS`."""


class JobLists:
    """The job lists of all workers of this process."""

    def __init__(self, rate_limits: RateLimits) -> None:
        self._rate_limits = rate_limits
        self._leased: OrderedDict[str, int] = OrderedDict()

    def take(self, worker_id: str, size: int) -> None:
        """Count a list of *size* bytes, before it is read.

        Raises:
            Refusal: `busy`: the worker sends long lists too often.
        """
        free = (FREE_JOBS + self._leased.get(worker_id, 0)) * BYTES_PER_JOB
        if size > free:
            self._rate_limits.take(worker_id, cost=(size - free) / BYTES_PER_CALL)

    def note(self, worker_id: str, leased: int) -> None:
        """Remember how many jobs the ledger has leased to this worker."""
        self._leased.pop(worker_id, None)
        if leased > FREE_JOBS:
            self._leased[worker_id] = leased
        while len(self._leased) > MOST_KEPT:
            self._leased.popitem(last=False)
