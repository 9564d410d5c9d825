"""The worker's own environment, if it was unpacked from `worker.pyz` or an installer: into a cache, which may be emptied.

A service needs a path that stays: :func:`keep` copies the environment into the state directory.

| path | content |
|---|---|
| `<state>/installed/<name>/` | a copy; its name tells the packages and the interpreter |
| `<state>/installed/current` | a link to the newest copy: what the unit names |

A daemon, or a job that it started, may still load modules from an earlier copy: :func:`prune` removes those that nothing uses.
"""

from __future__ import annotations

import os
import secrets
import shutil
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import psutil

MARK = "unpacked.json"
DIRECTORY = "installed"
GONE = ".gone-"
"""How the name of a copy begins that is being removed."""


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
            os.utime(part)  # the time of the copy, for `prune`
            part.rename(target)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    link = root / f".current.{secrets.token_hex(4)}"
    link.symlink_to(target.name)
    link.replace(root / "current")
    return program_in(state)


def prune(state: Path) -> list[Path]:
    """Remove the copies that nothing needs any more, and return them. Blocks.

    These stay: the one of `current`, with which the service starts and to which it falls back when a release from central can't
    run; newer ones, which another process may be about to make the current one; and each that a process runs from.

    Raises:
        OSError: the directory can't be changed.
    """
    root = state / DIRECTORY
    for left in root.glob(f"{GONE}*"):
        shutil.rmtree(left, ignore_errors=True)
    current = (root / "current").resolve()
    copies = [path for path in root.glob("[!.]*") if not path.is_symlink() and (path / MARK).exists()]
    if len(copies) < 2 or not current.exists():
        return []
    older = [path for path in copies if path.stat().st_mtime < current.stat().st_mtime]
    running = {*_find_running(path.name for path in older)}
    gone = [path for path in older if path.name not in running]
    for path in gone:
        # Renamed first: a directory with the name of a copy is always complete.
        shutil.rmtree(path.rename(root / f"{GONE}{secrets.token_hex(4)}"), ignore_errors=True)
    return gone


def _find_running(names: Iterable[str]) -> Iterator[str]:
    """Yield the names of the copies in a process's command line: a daemon's has its interpreter, a shim's the shim's program."""
    words = {word for process in psutil.process_iter(["cmdline"]) for word in process.info["cmdline"] or ()}
    for name in names:
        if any(f"/{DIRECTORY}/{name}/" in word for word in words):
            yield name
