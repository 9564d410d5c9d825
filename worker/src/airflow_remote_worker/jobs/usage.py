"""What jobs and their machine use: measured now, against what was measured before."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from pathlib import Path

import psutil
from airflow_remote_protocol.messages import JobUsage, MachineUsage

from airflow_remote_worker import system


class Meter:
    """Remembers what was used until the last reading. Blocking: for a thread, one reading at a time."""

    def __init__(self, root: Path) -> None:
        """*root*: where the worker keeps its state; of that disk it tells what is free."""
        self._root = root
        self._at = time.monotonic()
        self._busy_s = _busy_s()
        self._used_s: dict[int, float] = {}
        """By process: seconds of a processor."""

    def read(self, shims: Mapping[str, int]) -> tuple[MachineUsage, dict[str, JobUsage]]:
        """Return what the machine uses, and each job: by its id, whose shim has this pid, and this session."""
        now = time.monotonic()
        span_s, self._at = max(1e-3, now - self._at), now
        busy_s, before_s = _busy_s(), self._busy_s
        self._busy_s = busy_s
        memory = psutil.virtual_memory()
        machine = MachineUsage(
            cpus=max(0.0, busy_s - before_s) / span_s,
            cpu_count=float(psutil.cpu_count() or 1),
            memory=memory.total - memory.available,
            memory_total=memory.total,
            disk_free=psutil.disk_usage(str(self._root)).free,
        )
        return machine, self._read_jobs(shims, span_s)

    def _read_jobs(self, shims: Mapping[str, int], span_s: float) -> dict[str, JobUsage]:
        if not shims:
            self._used_s = {}
            return {}
        job_of = {pid: job_id for job_id, pid in shims.items()}
        cpu_s, memory = dict.fromkeys(shims, 0.0), dict.fromkeys(shims, 0)
        used_s: dict[int, float] = {}
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                job_id = job_of.get(system.session_of(process.pid) or 0)
                if job_id is None:
                    continue
                times = process.cpu_times()
                used_s[process.pid] = times.user + times.system
                # A process that is new has used all of it since the last reading, but for what it was forked with: nothing.
                cpu_s[job_id] += max(0.0, used_s[process.pid] - self._used_s.get(process.pid, 0.0))
                memory[job_id] += _memory(process)
        self._used_s = used_s
        return {job_id: JobUsage(cpus=cpu_s[job_id] / span_s, memory=memory[job_id]) for job_id in shims}


def _memory(process: psutil.Process) -> int:
    """Return the bytes that it holds; of what it shares with others, as a forked task does with its zygote, its part."""
    with contextlib.suppress(psutil.AccessDenied):
        if (part := getattr(process.memory_full_info(), "pss", None)) is not None:
            return int(part)
    held = process.memory_info()  # another user's, or another system
    return max(0, int(held.rss) - getattr(held, "shared", 0))


def _busy_s() -> float:
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - getattr(times, "iowait", 0.0) - getattr(times, "guest", 0.0))
