"""A separate wall clock for the processes that a test starts: it is correct until the test sets it.

    with Clock() as clock:
        Worker(…, variables=clock.variables, task_variables=clock.variables)
        clock.set(ahead_s=86_400)

Needs gcc: `clock.c` is preloaded and shifts the wall clock that programs read. Monotonic clocks, timeouts and file times are not
changed.
"""

from __future__ import annotations

import shutil
import struct
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType

SOURCE = Path(__file__).with_suffix(".c")


class Clock:
    """One clock. It applies to processes that have its `variables` in their environment, also to those of another user."""

    def __init__(self) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="remote-clock-"))
        self._directory.chmod(0o755)
        self._shift = self._directory / "shift"
        self._shift.write_bytes(struct.pack("d", 0.0))
        library = self._directory / "clock.so"
        command = ["gcc", "-O1", "-Wall", "-Werror", "-shared", "-fPIC", "-o", str(library), str(SOURCE), "-ldl"]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
        self.variables = {"LD_PRELOAD": str(library), "CLOCK_SHIFT": str(self._shift)}

    def set(self, *, ahead_s: float) -> None:
        """Set the clock *ahead_s* seconds ahead (negative: behind) for all processes that use it, from now on."""
        with self._shift.open("r+b") as shift:  # in place: the programs have mapped this file
            shift.write(struct.pack("d", ahead_s))

    def __enter__(self) -> Clock:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        shutil.rmtree(self._directory, ignore_errors=True)
