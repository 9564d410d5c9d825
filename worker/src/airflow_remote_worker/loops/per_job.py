"""The base of the loops that process each job separately: one asyncio task per job, in one task group."""

from __future__ import annotations

from abc import ABC, abstractmethod

import anyio
import anyio.abc

from airflow_remote_worker.jobs.job import Job


class PerJob(ABC):
    """Runs one task per job in :meth:`run`. *verb* is used in the tasks' names."""

    verb: str

    def __init__(self) -> None:
        self._tasks: anyio.abc.TaskGroup | None = None

    async def run(self, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Run the tasks of all jobs, until cancelled."""
        async with anyio.create_task_group() as self._tasks:
            task_status.started()
            await anyio.sleep_forever()

    def follow(self, job: Job) -> None:
        """Process *job* from now on."""
        assert self._tasks is not None, f"the {self.verb} loop is not running"
        self._tasks.start_soon(self._process, job, name=f"{self.verb} {job.lease}")

    @abstractmethod
    async def _process(self, job: Job) -> None:
        """Process *job* until nothing remains to do."""
