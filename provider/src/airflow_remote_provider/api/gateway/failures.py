"""Limits jobs whose calls make the Execution API fail: each failure costs a transaction and tens of kilobytes of central's log.

Some failures are not the job's fault: while a database restarts, every call fails. A job that keeps failing gets `busy`, for
longer each time, and its calls are not passed on meanwhile. Counted in this process. Used on the event loop only.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from airflow_remote_protocol.errors import ProblemCode

from airflow_remote_provider.api.problems import Refusal

FREE = 5
"""Failures before a job gets `busy`."""
AT_ONCE = 8
"""Calls of one job that may be passed on at the same time before any has failed. The Task SDK makes one, occasionally two."""
LONGEST_S = 60.0
"""The longest time that a job gets `busy`. Its worker delays every retry for that time."""
FORGOTTEN_S = 600.0
"""How long after its last failure a job's failures are forgotten."""
MOST_KEPT = 10_000


class ServerFailed(Refusal):
    """The Execution API failed on this call, and has logged why."""

    def __init__(self) -> None:
        super().__init__(ProblemCode.INTERNAL, "the Execution API failed on this request; central's log says why")


@dataclass
class _Failing:
    times: int = 0
    last_at: float = 0.0
    until: float = 0.0
    under_way: int = 0


class Failures:
    """The failures of all jobs in this process."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._jobs: OrderedDict[str, _Failing] = OrderedDict()

    @contextmanager
    def call(self, job_id: str) -> Iterator[Callable[[], None]]:
        """Make one call of the job. It counts as failed if it raises :class:`ServerFailed` or calls the yielded function.

        Raises:
            Refusal: `busy`: the job's calls have failed too often recently.
        """
        job = self._known(job_id)
        self._check(job)
        self._jobs[job_id] = job
        job.under_way += 1
        try:
            yield lambda: self._note(job)
        except ServerFailed:
            self._note(job)
            raise
        finally:
            job.under_way -= 1
            if not job.under_way and not job.times:
                self._jobs.pop(job_id, None)
            while len(self._jobs) > MOST_KEPT:
                self._jobs.popitem(last=False)

    def _known(self, job_id: str) -> _Failing:
        """Return the job's failures. They are kept for a while after a failure, else only while its calls are under way."""
        job = self._jobs.get(job_id, _Failing())
        if job.times and self._clock() - job.last_at >= FORGOTTEN_S:
            job.times = 0
        return job

    def _check(self, job: _Failing) -> None:
        left_s = job.until - self._clock()
        if left_s > 0:
            raise Refusal(
                ProblemCode.BUSY,
                f"the Execution API failed on {job.times} recent calls of this job; central's log says why. Try again later",
                retry_after_s=left_s,
            )
        if job.under_way >= (max(1, FREE - job.times) if job.times else AT_ONCE):
            text = f"this job has {job.under_way} calls of the Execution API under way; wait for their answers"
            raise Refusal(ProblemCode.BUSY, text, retry_after_s=1.0)

    def _note(self, job: _Failing) -> None:
        job.times += 1
        job.last_at = self._clock()
        if job.times > FREE:
            job.until = job.last_at + min(LONGEST_S, 2.0 ** (job.times - FREE))
