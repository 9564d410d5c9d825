"""Measures the processor time and memory of jobs and of the machine, relative to the previous reading."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from pathlib import Path

import psutil
from airflow_remote_protocol.messages import JobUsage, MachineUsage

from airflow_remote_worker import system


class Meter:
    """Remembers the usage at the last reading. Blocks: call it from a thread, one reading at a time."""

    def __init__(self, root: Path) -> None:
        """*root*: the worker's state directory; the free space of its disk is reported."""
        self._root = root
        self._at = time.monotonic()
        self._busy_s = _busy_s()
        self._used_s: dict[int, float] = {}
        """Processor seconds by pid."""

    def read(self, shims: Mapping[str, int]) -> tuple[MachineUsage, dict[str, JobUsage]]:
        """Return the usage of the machine and of each job. *shims*: by job id, the pid of the shim, which is also its session."""
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
                # A new process has used all of its time since the last reading: a fork begins at 0.
                cpu_s[job_id] += max(0.0, used_s[process.pid] - self._used_s.get(process.pid, 0.0))
                memory[job_id] += _memory(process)
        self._used_s = used_s
        return {job_id: JobUsage(cpus=cpu_s[job_id] / span_s, memory=memory[job_id]) for job_id in shims}


def _memory(process: psutil.Process) -> int:
    """Return the bytes that *process* holds; of memory shared with others (a forked task and its zygote) its part."""
    with contextlib.suppress(psutil.AccessDenied):
        if (part := getattr(process.memory_full_info(), "pss", None)) is not None:
            return int(part)
    held = process.memory_info()  # another user's, or another system
    return max(0, int(held.rss) - getattr(held, "shared", 0))


def _busy_s() -> float:
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - getattr(times, "iowait", 0.0) - getattr(times, "guest", 0.0))
