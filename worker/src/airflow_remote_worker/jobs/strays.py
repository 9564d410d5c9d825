"""What a job left running when its shim was gone before it could see to that (`shim/system.py`): found and ended."""

from __future__ import annotations

import contextlib
import os

import psutil

from airflow_remote_worker import system
from airflow_remote_worker.jobs.process import is_alive
from airflow_remote_worker.local import job_files
from airflow_remote_worker.state.spool import ShimRecord

WIND_DOWN_S = 5.0
"""Between SIGTERM and SIGKILL; what Airflow gives a task."""


def end_strays(name: str, shim: ShimRecord | None, *, wind_down_s: float = WIND_DOWN_S) -> list[str]:
    """End what the job *name* left running when its shim was gone before it could see to that; return what it was.

    They are in the shim's session or carry its job's mark. Blocks for up to twice *wind_down_s*: not in the loop.
    """
    strays = find_strays(name, shim)
    told = []
    for process in strays:
        with contextlib.suppress(psutil.Error):
            told.append(f"{process.name()} ({process.pid})")
            process.terminate()
    _, alive = psutil.wait_procs(strays, timeout=wind_down_s)
    # Again by a look: what they started meanwhile must go too.
    for process in {*alive, *find_strays(name, shim)}:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(alive, timeout=wind_down_s)
    return told


def find_strays(name: str, shim: ShimRecord | None) -> list[psutil.Process]:
    """Return the processes of the job *name*, its shim included."""
    # Its session's number stays taken while anything is in that session, unless the machine was restarted, or it was never taken.
    session = shim.pid if shim and shim.birth_mark.partition(":")[0] in ("", system.boot_id()) else None
    if session is not None and shim and not is_alive(shim) and psutil.pid_exists(session) and not _is_zombie(session):
        session = None  # a later process with its number
    found = []
    for process in psutil.process_iter():
        if process.pid == os.getpid() or _is_zombie(process.pid):
            continue
        with contextlib.suppress(psutil.Error, OSError):
            if (session is not None and system.session_of(process.pid) == session) or (
                process.environ().get(job_files.JOB_MARK) == name
            ):
                found.append(process)
    return found


def _is_zombie(pid: int) -> bool:
    with contextlib.suppress(psutil.Error):
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    return False
