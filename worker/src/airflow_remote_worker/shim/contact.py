"""Enforces `stop_after` in a shim whose daemon is dead: two copies of a task must never run.

While the daemon lives, it enforces the limit by the same clock from the same moment, and sends a stop (`jobs/supervisor.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from airflow_remote_worker.local import boottime, frames, job_files


class LastContact:
    """The time of the worker's last successful exchange with central, as stored by the daemon."""

    def __init__(self, job: job_files.JobSpec, now: Callable[[], float] = boottime.now) -> None:
        self._path = Path(job.contact_path) if job.contact_path else None
        self._at = job.contact_at
        self._stop_after_s = job.stop_after_s
        self._now = now

    def verdict(self) -> frames.Stop | None:
        """Return the stop if it is due. Call it only while no daemon can be reached."""
        if self._path is None or self._now() - self._look() <= self._stop_after_s:
            return None
        detail = f"no contact with central for {self._stop_after_s:.0f} s; it counts this job as lost by now"
        return frames.Stop(reason="superseded", detail=detail)

    def _look(self) -> float:
        assert self._path is not None
        try:
            stored = float(self._path.read_text())
        except (OSError, ValueError):
            return self._at
        # A time in the future is from another boot, or garbled: the job must not run for ever because of it.
        if self._at < stored <= self._now():
            self._at = stored
        return self._at
