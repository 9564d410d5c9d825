"""Finds and ends processes that a job left running because its shim died before it could end them (`shim/posix.py`)."""

from __future__ import annotations

import contextlib
import os

import psutil

from airflow_remote_worker import system
from airflow_remote_worker.jobs.process import is_alive
from airflow_remote_worker.local import job_files
from airflow_remote_worker.state.spool import ShimRecord

WIND_DOWN_S = 5.0
"""Between SIGTERM and SIGKILL; as long as Airflow gives a task."""


def end_strays(name: str, shim: ShimRecord | None, *, wind_down_s: float = WIND_DOWN_S) -> list[str]:
    """End the processes that the job *name* left running; return them as `name (pid)`.

    They are in the shim's session or carry the job's mark. Blocks for up to twice *wind_down_s*: not for the event loop.
    """
    strays = find_strays(name, shim)
    names = []
    for process in strays:
        with contextlib.suppress(psutil.Error):
            names.append(f"{process.name()} ({process.pid})")
            process.terminate()
    _, alive = psutil.wait_procs(strays, timeout=wind_down_s)
    # Search again: processes that they started meanwhile must end too.
    for process in {*alive, *find_strays(name, shim)}:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(alive, timeout=wind_down_s)
    return names


def find_strays(name: str, shim: ShimRecord | None) -> list[psutil.Process]:
    """Return the processes of the job *name*, its shim included."""
    # The session's number stays in use while a process is in that session, unless the machine was restarted.
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
