"""Reports the resource usage of jobs and of the machine to central, while there are jobs, at the interval that central sets."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import anyio
import anyio.to_thread
from airflow_remote_protocol.messages import Usage

from airflow_remote_worker.clock import Clock
from airflow_remote_worker.errors import Refused
from airflow_remote_worker.jobs.usage import Meter
from airflow_remote_worker.link.attempts import RETRIED_OF_WORKER, Attempts
from airflow_remote_worker.link.client import Link

FIRST_S = 2.0
"""After a job has begun: long enough to skip short jobs, short enough to report the cost of a start at once."""
LEAST_S = 2.0
LONGEST_S = 600.0
REFUSED_PAUSE_S = 300.0


class UsageLoop:
    """Measures and reports. An idle worker does neither."""

    def __init__(self, link: Link, clock: Clock, *, meter: Meter, shims: Callable[[], Mapping[str, int]]) -> None:
        """*shims* returns the pids of the running jobs' shims, by job id."""
        self._link = link
        self._clock = clock
        self._meter = meter
        self._shims = shims
        self._wanted = anyio.Event()
        self._begun = anyio.Event()

    def set_wanted(self, *, wanted: bool) -> None:
        """Note whether central accepts usage reports, as its newest session says."""
        if wanted:
            self._wanted.set()
        elif self._wanted.is_set():
            self._wanted = anyio.Event()

    def on_job_held(self) -> None:
        """Note that the worker holds a job."""
        self._begun.set()

    async def run(self) -> None:
        """Report usage, until cancelled."""
        attempts = Attempts(self._link, self._clock, floor_s=LEAST_S, ceiling_s=60.0)
        while True:
            await self._wanted.wait()
            shims = self._shims()
            if not shims:
                self._begun = anyio.Event()
                await self._begun.wait()
                await self._clock.sleep(FIRST_S)
                continue
            try:
                machine, jobs = await anyio.to_thread.run_sync(self._meter.read, shims)
                every_s = await self._link.report_usage(Usage(machine, jobs))
                attempts.reset()
                await self._clock.sleep(min(LONGEST_S, max(LEAST_S, every_s)))
            except Refused:
                await self._clock.sleep(REFUSED_PAUSE_S)
            except RETRIED_OF_WORKER as error:
                await attempts.wait_after(error)
            except OSError:
                await self._clock.sleep(REFUSED_PAUSE_S)  # the disk's free space can't be read
