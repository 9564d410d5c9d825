"""Counts `stop_after` for a shim whose daemon is dead: two copies of a task must never run, whoever is there to see to it.

While the daemon lives it counts itself, by the same clock from the same moment (`jobs/supervisor.py`), and sends a stop.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from airflow_remote_worker.local import boottime, frames, job_files


class LastContact:
    """When this worker last had a good exchange with central, as far as the daemon has written it down."""

    def __init__(self, job: job_files.JobSpec, now: Callable[[], float] = boottime.now) -> None:
        self._path = Path(job.contact_path) if job.contact_path else None
        self._at = job.contact_at
        self._stop_after_s = job.stop_after_s
        self._now = now

    def verdict(self) -> frames.Stop | None:
        """Return the stop that is due, if it is. Ask only while no daemon can be reached."""
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
        # A moment ahead of us is of another boot, or garbled: not a reason to run on for ever.
        if self._at < stored <= self._now():
            self._at = stored
        return self._at
