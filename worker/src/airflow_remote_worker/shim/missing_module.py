"""Finds out from a task's log that the runtime lacks a module which the task imports, and says how to add it."""

from __future__ import annotations

import re
import sys
from importlib.util import find_spec
from pathlib import Path

from airflow_remote_worker.local import job_files

TAIL_BYTES = 256 * 1024
"""The end of the log that is read: an exception that ends a task is among the last lines."""
MISSING = re.compile(rb"ModuleNotFoundError.{0,200}?No module named '([A-Za-z0-9_.]{1,200})'")


def explain_missing_module(job: job_files.JobSpec, log: Path) -> str:
    """Return which module of *log*'s last import error the runtime lacks, and the remedy; empty if it lacks none."""
    try:
        with log.open("rb") as stream:
            stream.seek(max(0, stream.seek(0, 2) - TAIL_BYTES))
            found = MISSING.findall(stream.read(TAIL_BYTES))
    except OSError:
        return ""
    if not found:
        return ""
    module = found[-1].decode()
    if _is_here(module.partition(".")[0], job.bundle_path):
        return ""
    if not job.runtime_name:
        return (
            f"The runtime of this worker, {sys.executable}, has no module {module!r}. If it belongs to a package, install that "
            "package there; if it is a file of the Dag bundle, check that the bundle has it."
        )
    return (
        f"The runtime {job.runtime_name!r} has no module {module!r}. If it belongs to a package, add that package to a file of "
        f"requirements and run on central: airflow remote runtimes build {job.runtime_name} --requirements FILE --roll. If it is "
        "a file of the Dag bundle, check that the bundle has it and that its .remoteignore does not exclude it."
    )


def _is_here(name: str, bundle_path: str) -> bool:
    """Return whether the runtime or the bundle has the top-level module *name*, so that something else is wrong."""
    try:
        if find_spec(name) is not None:
            return True
    except (ImportError, ValueError):  # a broken package
        return True
    bundle = Path(bundle_path or ".")
    return bool(bundle_path) and ((bundle / name).is_dir() or (bundle / f"{name}.py").is_file())
