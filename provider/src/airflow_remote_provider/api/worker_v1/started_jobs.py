"""Tracks which jobs have run code of their own, as shown by a write through the gateway besides their start and their end.

This distinguishes jobs that failed in their own code from those that failed on a broken machine, without asking the machine. An
ordinary job costs the ledger nothing, since all its calls reach one process, which remembers. A write that reaches a process
which has not seen the job's start is noted in the job's row.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable

from airflow_remote_provider.ledger.fence import WorkerLease

MOST_KEPT = 10_000
"""Jobs that are remembered, at 200 bytes each."""


class StartedJobs:
    """The started jobs of one API process. Used on the event loop only."""

    def __init__(self) -> None:
        self._wrote: OrderedDict[WorkerLease, bool] = OrderedDict()
        self._rescheduled: OrderedDict[WorkerLease, None] = OrderedDict()

    def note_start(self, lease: WorkerLease) -> None:
        """Note that the job's start reached this process."""
        self._wrote.setdefault(lease, False)
        while len(self._wrote) > MOST_KEPT:
            self._wrote.popitem(last=False)

    async def note_write(self, lease: WorkerLease, *, store: Callable[[WorkerLease], Awaitable[object]]) -> bool:
        """Note a write of the job; *store* notes it in the job's row. Return whether it is the first that this process saw."""
        if lease not in self._wrote:
            await store(lease)
            self.note_start(lease)
        is_first = not self._wrote[lease]
        self._wrote[lease] = True
        return is_first

    def note_reschedule(self, lease: WorkerLease) -> None:
        """Note that the job succeeded and its task is rescheduled. The Task SDK also does that if it can't load a Dag file."""
        if self._wrote.get(lease) is False:
            self._rescheduled[lease] = None
            while len(self._rescheduled) > MOST_KEPT:
                self._rescheduled.popitem(last=False)

    def is_inconclusive(self, lease: WorkerLease) -> bool:
        """Return whether the job's success does not prove its machine healthy: it was rescheduled without any write."""
        return lease in self._rescheduled

    def has_begun(self, lease: WorkerLease) -> bool | None:
        """Return whether the job has written anything; None if its start did not reach this process."""
        return self._wrote.get(lease)

    def forget(self, lease: WorkerLease) -> None:
        """Forget a job that is over."""
        self._wrote.pop(lease, None)
        self._rescheduled.pop(lease, None)
