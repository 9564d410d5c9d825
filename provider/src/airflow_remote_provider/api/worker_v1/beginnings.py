"""Which jobs have begun to do something of their own: written anything through the gateway besides their start and their end.

It tells jobs that failed in their own code from those that a broken machine failed, without asking the machine. An ordinary job
costs the ledger nothing: its calls come to one process, which remembers. A write that comes to a process which has not seen the
job's start is noted in the job's row.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable

from airflow_remote_provider.ledger.fence import WorkerLease

MOST_KEPT = 10_000
"""Jobs that are remembered; 200 bytes each."""


class StartedJobs:
    """Of one API process. Asked on the event loop only."""

    def __init__(self) -> None:
        self._wrote: OrderedDict[WorkerLease, bool] = OrderedDict()
        self._rescheduled: OrderedDict[WorkerLease, None] = OrderedDict()

    def note_start(self, lease: WorkerLease) -> None:
        """The job may run; its start came to this process."""
        self._wrote.setdefault(lease, False)
        while len(self._wrote) > MOST_KEPT:
            self._wrote.popitem(last=False)

    async def note_write(self, lease: WorkerLease, *, store: Callable[[WorkerLease], Awaitable[object]]) -> bool:
        """The job has written; *store* notes that in its row. Return whether this process has seen no write of it before."""
        if lease not in self._wrote:
            await store(lease)
            self.note_start(lease)
        is_first = not self._wrote[lease]
        self._wrote[lease] = True
        return is_first

    def note_reschedule(self, lease: WorkerLease) -> None:
        """The job ends well, and its task comes again: the Task SDK does so, too, with a Dag file that it can't load."""
        if self._wrote.get(lease) is False:
            self._rescheduled[lease] = None
            while len(self._rescheduled) > MOST_KEPT:
                self._rescheduled.popitem(last=False)

    def says_nothing(self, lease: WorkerLease) -> bool:
        """Return whether the job's good end says nothing of its machine: it was rescheduled and had written nothing."""
        return lease in self._rescheduled

    def has_begun(self, lease: WorkerLease) -> bool | None:
        """Return whether the job has written anything; None: its start did not come to this process."""
        return self._wrote.get(lease)

    def forget(self, lease: WorkerLease) -> None:
        """The job is over."""
        self._wrote.pop(lease, None)
        self._rescheduled.pop(lease, None)
