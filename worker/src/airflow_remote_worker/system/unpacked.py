"""The worker's own environment, if it was unpacked from `worker.pyz` or an installer: into a cache, which may be emptied.

A service needs a path that stays: :func:`keep` copies the environment into the state directory.

| path | content |
|---|---|
| `<state>/installed/<name>/` | a copy; its name tells the packages and the interpreter |
| `<state>/installed/current` | a link to the newest copy: what the unit names |

Earlier copies stay: a daemon, or a job that it started, may still load modules from one.
"""

from __future__ import annotations

import secrets
import shutil
import sys
from pathlib import Path

MARK = "unpacked.json"
DIRECTORY = "installed"


def is_unpacked(prefix: Path | None = None) -> bool:
    """Return whether this program was unpacked from one file."""
    return (Path(sys.prefix if prefix is None else prefix) / MARK).exists()


def program_in(state: Path) -> Path:
    """Return the path of the program that :func:`keep` makes."""
    return state / DIRECTORY / "current" / "bin" / "airflow-remote-worker"


def keep(state: Path, prefix: Path | None = None) -> Path:
    """Copy this environment into the state directory, and return the path of its program.

    Raises:
        OSError: the disk is full, or the directory can't be written.
    """
    source = Path(sys.prefix if prefix is None else prefix).resolve()
    root = state / DIRECTORY
    target = root / source.name
    root.mkdir(mode=0o755, exist_ok=True)
    root.chmod(0o755)
    if source != target.resolve() and not (target / MARK).exists():
        part = root / f".{source.name}.{secrets.token_hex(4)}"
        try:
            shutil.copytree(source, part, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
            part.chmod(0o755)
            part.rename(target)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    link = root / f".current.{secrets.token_hex(4)}"
    link.symlink_to(target.name)
    link.replace(root / "current")
    return program_in(state)
