"""Runs the canary in a runtime: starts it as a job is started, waits for its end, and reads its result."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Protocol

import anyio
import msgspec

from airflow_remote_worker.jobs.process import CannotHost, StartUncertain, kill, wait_for_exit
from airflow_remote_worker.local import job_files
from airflow_remote_worker.local.seal import unsealed
from airflow_remote_worker.state.spool import ShimRecord

WITHIN_S = 180.0
"""Long enough for a small board that has no bytecode yet. A canary that takes longer shows that the runtime hangs."""


LAST_BYTES = 4096
"""The end of a log in which the cause of a failure is looked for."""


class Starter(Protocol):
    """Starts shims. Implemented by :class:`~.launcher.Launcher`."""

    async def launch(self, job_dir: Path) -> ShimRecord: ...


async def run_canary(starter: Starter, directory: Path) -> job_files.CanaryResult:
    """Run the canary in *directory*, which is kept only if something is wrong.

    Faults of the runtime are returned in the result, never raised.
    """
    try:
        _prepare(directory)
        shim = await starter.launch(directory)
    except (CannotHost, StartUncertain, OSError) as error:
        return job_files.CanaryResult(trouble=str(error))
    with anyio.move_on_after(WITHIN_S):
        await wait_for_exit(shim)
        found = _read(directory)
        if found.trouble:
            trouble = f"the runtime failed its canary (a built-in task): {found.trouble}; see {directory / 'task.log'}"
            return msgspec.structs.replace(found, trouble=trouble)
        shutil.rmtree(directory, ignore_errors=True)
        return found
    kill(shim)
    return job_files.CanaryResult(
        trouble=f"the runtime failed its canary (a built-in task), which did not end within {WITHIN_S:.0f} s; see {directory}"
    )


def _prepare(directory: Path) -> None:
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(mode=0o700, parents=True)
    (directory / job_files.CANARY_SPEC).write_bytes(b"{}")


def _read(directory: Path) -> job_files.CanaryResult:
    try:
        return msgspec.json.decode(unsealed((directory / "result.json").read_bytes()), type=job_files.CanaryResult)
    except (OSError, ValueError, msgspec.MsgspecError) as error:
        log = directory / "shim.log"
        said = f"; its last words: {last!r}" if (last := _last_line(log)) else ""
        return job_files.CanaryResult(trouble=f"it ended without a result ({error}){said}; see {log}")


def _last_line(log: Path) -> str:
    """Return the last line with text that a process wrote, at most 300 characters."""
    try:
        with log.open("rb") as stream:
            stream.seek(max(0, stream.seek(0, 2) - LAST_BYTES))
            lines = [line.strip() for line in stream.read(LAST_BYTES).decode("utf-8", "replace").splitlines()]
    except OSError:
        return ""
    return next((line[:300] for line in reversed(lines) if line), "")
