"""Runs a program of the environment `deploy`, and fails with its output."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
PROGRAMS = Path(sys.executable).parent


class CheckFailed(Exception):
    """Something that is deployed is not as it must be; the text says what and where."""


def run(*command: str | Path, cwd: Path = ROOT, env: dict[str, str] | None = None, timeout_s: int = 300) -> str:
    """Run *command* and return what it printed.

    Raises:
        CheckFailed: it exited with another code than 0; the text has its output.
    """
    path = f"{PROGRAMS}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**os.environ, "PATH": path, **(env or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    if done.returncode:
        named = " ".join(str(part) for part in command)
        raise CheckFailed(f"{named} exited with {done.returncode}:\n{done.stdout}\n{done.stderr}")
    return done.stdout
