"""Describes the interpreter that runs it. As a script it prints the description as JSON, so that others can be asked.

Uses only the standard library, and nothing newer than Python 3.8: the interpreter that is asked may be any.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import sysconfig
from pathlib import Path
from typing import Any


def describe() -> dict[str, Any]:
    """Return what decides which wheels this interpreter can use.

    `implementation` (`cpython`), `version` (`3.11.9`), `system` (`Linux`), `libc` (`gnu`, `musl`, or empty outside of Linux),
    `machine` (as the kernel names it), `bits` (of a pointer), whether it is a build without the GIL (`free_threaded`), which
    needs wheels of its own, and the path of the interpreter without an environment (`base`).
    """
    return {
        "implementation": sys.implementation.name,
        "version": platform.python_version(),
        "system": platform.system(),
        "libc": _libc(),
        "machine": platform.machine(),
        "bits": 64 if sys.maxsize > 2**32 else 32,
        "free_threaded": bool(sysconfig.get_config_var("Py_GIL_DISABLED")),
        "base": _base(),
    }


def _base() -> str:
    """Return the path in the directory of the installation: a link elsewhere to it does not lead to its standard library."""
    executable = getattr(sys, "_base_executable", "") or sys.executable
    installed = Path(sys.base_prefix) / "bin" / "python{}.{}".format(*sys.version_info)
    try:
        return str(installed) if installed.samefile(executable) else executable
    except OSError:
        return executable


def _libc() -> str:
    if platform.system() != "Linux":
        return ""
    try:
        found = os.confstr("CS_GNU_LIBC_VERSION") or ""
    except (ValueError, OSError):  # musl does not know the name
        found = ""
    return "gnu" if found.startswith("glibc") else "musl"


if __name__ == "__main__":
    sys.stdout.write(json.dumps(describe()))
