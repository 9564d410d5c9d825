"""Limits how much one job may write through the gateway, in bytes and in calls.

The ledger counts, so that a job does not get more after a restart or from another API process. An ordinary job writes a few
kilobytes in a few calls; this process counts them, at no cost for the ledger. A job that writes more reserves blocks there.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from airflow_remote_provider.api.pool import LedgerPool
from airflow_remote_provider.api.problems import TooMuchWritten
from airflow_remote_provider.ledger import written
from airflow_remote_provider.ledger.fence import WorkerLease
from airflow_remote_provider.ledger.written import Bounds

FREE_BYTES = 64 * 1024
FREE_CALLS = 32
"""How much each process lets a job write before it asks the ledger: rendered fields, a few XComs, the terminal state."""
BLOCKS = 16
"""The limit is reserved in this many blocks, which bounds how often a job asks the ledger, except for large calls."""
MOST_KEPT = 10_000
"""Jobs that are remembered, at 200 bytes each."""


@dataclass
class _Left:
    """How much a job may still write before the ledger is asked again."""

    size: int
    calls: int


class Writes:
    """Counts the writes of the jobs of one API process. Used on the event loop only."""

    def __init__(self, pool: LedgerPool, bounds: Bounds) -> None:
        self._pool = pool
        self._bounds = bounds
        self._block = Bounds(bounds.size // BLOCKS, bounds.calls // BLOCKS)
        self._free = Bounds(min(FREE_BYTES, self._block.size), min(FREE_CALLS, self._block.calls))
        self._left: OrderedDict[WorkerLease, _Left] = OrderedDict()

    async def take(self, lease: WorkerLease, size: int) -> None:
        """Count a call of the job that writes *size* bytes.

        Raises:
            TooMuchWritten: it would exceed the limit of a job.
        """
        left = self._left.setdefault(lease, _Left(self._free.size, self._free.calls))
        self._left.move_to_end(lease)
        while len(self._left) > MOST_KEPT:
            self._left.popitem(last=False)
        while left.size < size or left.calls < 1:  # another call of the job may use up the reservation meanwhile
            await self._reserve(lease, left, size)
        left.size -= size
        left.calls -= 1

    async def _reserve(self, lease: WorkerLease, left: _Left, size: int) -> None:
        """Reserve a block; if less than a block is left of the limit, reserve only what this call needs."""
        block = Bounds(max(self._block.size, size), max(self._block.calls, 1))
        for wanted in (block, Bounds(max(size - left.size, 0), 1 if left.calls < 1 else 0)):
            if await self._pool.jobs.call(written.reserve, lease, wanted, most=self._bounds):
                left.size += wanted.size
                left.calls += wanted.calls
                return
        raise TooMuchWritten(
            f"this job has reached the limit of writes: {self._bounds.size} bytes ([remote] written_bytes_per_job) in "
            f"{self._bounds.calls} calls ([remote] writes_per_job); this call of {size} bytes was refused. Keep large values "
            "outside Airflow (an XCom backend, object storage), or ask an administrator to raise the option"
        )
