"""What the loops that look after each job by itself have in common: one task per job, all with one parent."""

from __future__ import annotations

from abc import ABC, abstractmethod

import anyio
import anyio.abc

from airflow_remote_worker.jobs.job import Job


class PerJob(ABC):
    """One task per job, all under :meth:`run`. *verb* is what they do, for their names."""

    verb: str

    def __init__(self) -> None:
        self._tasks: anyio.abc.TaskGroup | None = None

    async def run(self, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Be the parent of all of them, until cancelled."""
        async with anyio.create_task_group() as self._tasks:
            task_status.started()
            await anyio.sleep_forever()

    def follow(self, job: Job) -> None:
        """Look after this job from now on."""
        assert self._tasks is not None, f"the loop that has to {self.verb} is not running"
        self._tasks.start_soon(self._attend, job, name=f"{self.verb} {job.lease}")

    @abstractmethod
    async def _attend(self, job: Job) -> None:
        """Do all there is to do for *job*."""
