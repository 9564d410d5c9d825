"""Finds the interpreter that runtimes from central are made from: never the worker's own environment, only its base.

Trouble is described, never raised: a worker whose interpreter was removed must still adopt the jobs that run.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from airflow_remote_protocol.platforms import BadPlatform, Platform, normal_processor

from airflow_remote_worker import system
from airflow_remote_worker.config import Config
from airflow_remote_worker.local import interpreter

ASK_WITHIN_S = 60.0
"""An interpreter starts in 20 ms; a cold disk of a small board takes seconds."""
OLDEST = (3, 10)
SYSTEMS = {"Linux": "linux", "Darwin": "macos", "Windows": "windows"}
OF_32_BITS = {"x86_64": "i686", "aarch64": "armv7l"}
"""What a 32-bit interpreter on a 64-bit kernel can use."""


@dataclass(frozen=True)
class Interpreter:
    """The interpreter that runtimes from central are made from."""

    python: Path
    platform: str = ""
    """As :mod:`airflow_remote_protocol.platforms` names it; empty: this worker takes no runtimes from central."""
    minor: str = ""
    """`3.11`."""
    trouble: str = ""
    """Why it can't be used; empty: it can, or the site has installed a runtime itself."""


def find(config: Config) -> Interpreter:
    """Return the interpreter for runtimes from central. Asks `runtime.interpreter`, if set, in a child."""
    own, named = config.runtime.python, config.runtime.interpreter
    if own is not None:
        return Interpreter(own)
    python = named or Path(sys.executable)
    if refused := config.refuses_runtimes:
        remedy = "or set runtime.python to an environment with the Airflow Task SDK"
        return Interpreter(python, trouble=f"this worker uses no runtime from central: {refused}; {remedy}")
    remedy = (
        "set runtime.interpreter to a CPython of 3.10 or newer, or runtime.python to an environment with the Airflow Task SDK"
    )
    if not system.CAN_FORK:
        return Interpreter(python, trouble=f"this system can't use runtimes from central; {remedy.partition(', or ')[2]}")
    try:
        found = interpreter.describe() if named is None else _ask(python)
        python = Path(found["base"])
        if not python.is_file():
            raise ValueError("it does not exist any more")
        platform = _platform_of(found)
    except (OSError, ValueError, KeyError, TypeError, subprocess.SubprocessError) as error:
        return Interpreter(python, trouble=f"{python} can't be used for runtimes from central: {_text(error)}; {remedy}")
    return Interpreter(python, str(platform), platform.python)


def find_own() -> Interpreter:
    """Return the interpreter of this process, without its environment, from which releases of the worker are made."""
    python = Path(sys.executable)
    if not system.CAN_FORK:
        return Interpreter(python, trouble="this system can't replace a running program; update the worker by hand")
    try:
        found = interpreter.describe()
        python = Path(found["base"])
        platform = _platform_of(found)
    except (OSError, ValueError, KeyError, TypeError) as error:
        return Interpreter(python, trouble=f"{python} can't be used for releases from central: {_text(error)}; update by hand")
    return Interpreter(python, str(platform), platform.python)


def _ask(python: Path) -> dict[str, Any]:
    """Return what the interpreter says about itself. Raises: OSError, ValueError, SubprocessError."""
    script = interpreter.__file__
    done = subprocess.run([python, "-I", script], capture_output=True, timeout=ASK_WITHIN_S, check=False)
    if done.returncode:
        lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise ValueError(f"it ended with {done.returncode}: {lines[-1] if lines else 'no message'}")
    answer = json.loads(done.stdout)
    if not isinstance(answer, dict):
        raise ValueError("it is not a Python interpreter")
    return answer


def _platform_of(found: dict[str, Any]) -> Platform:
    """Raises: ValueError: runtimes can't be built for it."""
    if found["implementation"] != "cpython" or found["free_threaded"]:
        what = "CPython without a global lock" if found["free_threaded"] else str(found["implementation"])
        raise ValueError(f"it is {what}, and only the usual CPython is supported")
    major, minor = map(int, str(found["version"]).split(".")[:2])
    if (major, minor) < OLDEST:
        raise ValueError(f"it is Python {found['version']}, and tasks need 3.10 or newer")
    processor = normal_processor(str(found["machine"]))
    if found["bits"] == 32:
        processor = OF_32_BITS.get(processor, processor)
    made = Platform(f"{major}.{minor}", SYSTEMS.get(str(found["system"]), ""), str(found["libc"]), processor)
    try:
        return Platform.parse(str(made))
    except BadPlatform:
        raise ValueError(f"central has no builds for {found['system']} on {found['machine']}") from None


def _text(error: Exception) -> str:
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
