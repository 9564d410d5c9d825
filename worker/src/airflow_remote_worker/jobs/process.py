"""Processes: starts interpreters, identifies, watches and ends shims.

It does not depend on offers, logs or central.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import subprocess
from pathlib import Path

import anyio
import psutil

from airflow_remote_worker import system
from airflow_remote_worker.local import frames
from airflow_remote_worker.state.spool import ShimRecord

log = logging.getLogger(__name__)


class CannotHost(Exception):
    """The runtime can't run tasks; the text says why and what to do."""


class StartUncertain(Exception):
    """The start was interrupted: a shim may or may not be alive, and no second one must be started."""


def start(
    argv: list[str], *, env: dict[str, str], output: Path, cwd: Path, pass_fds: tuple[int, ...] = ()
) -> subprocess.Popen[bytes]:
    """Start the interpreter *argv[0]*, with its output in the file *output*. Raises: CannotHost."""
    try:
        return system.launch(argv, env=env, output=output, cwd=cwd, pass_fds=pass_fds)
    except OSError as error:
        remedy = "set runtime.python to the Python of an environment with the Airflow Task SDK"
        raise CannotHost(f"{argv[0]} can't be started: {error.strerror}; {remedy}") from None


# Identity, life and exit of a process


_children: dict[int, subprocess.Popen[bytes]] = {}
"""Our own children, kept to be reaped. A zygote's shims are the zygote's children, or orphans."""


def record(spawned: frames.Spawned) -> ShimRecord:
    """Return the record to store for a shim that has just been started."""
    return ShimRecord(pid=spawned.pid, start_time=spawned.start_time, birth_mark=system.birth_mark(spawned.pid) or "")


def is_alive(shim: ShimRecord) -> bool:
    """Return whether exactly this process still runs (not a zombie, not a later process with its pid)."""
    reap()
    try:
        process = psutil.Process(shim.pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        mark = system.birth_mark(shim.pid)
        if shim.birth_mark and mark:
            return shim.birth_mark == mark
        return not shim.start_time or abs(process.create_time() - shim.start_time) < 1.0
    except psutil.NoSuchProcess:
        return False


async def wait_for_exit(shim: ShimRecord) -> None:
    """Return when exactly this process has ended."""
    try:
        fd = system.open_pidfd(shim.pid)
    except ProcessLookupError:
        return
    if fd is None:
        while is_alive(shim):  # noqa: ASYNC110 -- these systems have no event for it
            await anyio.sleep(0.5)
        return
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    try:
        # Checked after the descriptor was opened: from here on the pid can't be reused unnoticed.
        if not is_alive(shim):
            return
        loop.add_reader(fd, ended.set)
        await ended.wait()
    finally:
        loop.remove_reader(fd)
        os.close(fd)
        reap()


def keep_child(process: subprocess.Popen[bytes]) -> None:
    """Remember a child of ours, so that it is reaped when it has ended."""
    _children[process.pid] = process


def reap() -> None:
    """Collect those of our own children that have ended."""
    for pid, process in list(_children.items()):
        if process.poll() is not None:
            del _children[pid]


def find_shim(shim_log: Path) -> ShimRecord | None:
    """Return the process that writes *shim_log*, if any: a shim whose start was not recorded. Inspects every process once."""
    found: list[tuple[float, int]] = []
    wanted = str(shim_log.resolve())
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if any(file.path == wanted for file in process.open_files()):
                found.append((process.create_time(), process.pid))
    if not found:
        return None
    start_time, pid = min(found)  # its task, a child, may hold the file too
    return ShimRecord(pid=pid, start_time=start_time, birth_mark=system.birth_mark(pid) or "")


def terminate(shim: ShimRecord) -> None:
    """Ask the shim's process group to end."""
    if is_alive(shim):
        system.signal_group(shim.pid, signal.SIGTERM)


def kill(shim: ShimRecord) -> None:
    """End the shim and everything that it started, in whatever process group or session."""
    if not is_alive(shim):
        return
    family: list[psutil.Process] = []
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(shim.pid)
        family = [process, *process.children(recursive=True)]
    for process in family:
        with contextlib.suppress(psutil.Error):
            process.kill()
