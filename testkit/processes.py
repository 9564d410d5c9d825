"""Processes that a test starts: each has its own group and a log file, and ends when the process that started it ends.

Owns starting and ending; does not depend on the program that runs.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

_PR_SET_PDEATHSIG = 1


def free_port() -> int:
    """Return a loopback port that was free a moment ago (the kernel picks ephemeral ports in turn, so a clash is unlikely)."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def is_listening(port: int) -> bool:
    """Return whether a connection to the loopback port is accepted."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except OSError:
        return False
    return True


def wait_until(check: Callable[[], object], *, timeout_s: float, what: str, every_s: float = 0.1) -> object:
    """Return the first truthy answer of *check*.

    Raises:
        TimeoutError: there was no truthy answer within *timeout_s*; the message names *what* and the last answer.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        answer = check()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {timeout_s:.0f} s (last answer: {answer!r})")
        time.sleep(every_s)


def clean_environment(extra: Mapping[str, str] | None = None, *, keep: Iterable[str] = ()) -> dict[str, str]:
    """Return an environment without any variable of Airflow or of the caller's Python, plus *extra*."""
    wanted = {"PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "USER", "LOGNAME", *keep}
    environment = {name: value for name, value in os.environ.items() if name in wanted}
    environment.setdefault("LANG", "C.UTF-8")
    return environment | dict(extra or {})


class Process:
    """One started program: leader of its own process group, output appended to *log*."""

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        *,
        log: Path,
        env: Mapping[str, str],
        cwd: Path | None = None,
        user: int | None = None,
        group: int | None = None,
    ) -> None:
        self.name = name
        self.log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            self._popen = subprocess.Popen(
                [str(part) for part in command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=dict(env),
                cwd=cwd,
                start_new_session=True,
                user=user,
                group=group,
                extra_groups=None if user is None else [],
                preexec_fn=_end_with_parent if sys.platform == "linux" else None,
            )

    @property
    def pid(self) -> int:
        return self._popen.pid

    def is_running(self) -> bool:
        return self._popen.poll() is None

    def exit_code(self) -> int | None:
        return self._popen.poll()

    def send(self, number: int) -> None:
        """Send the signal *number* to this process only, not to its children."""
        with contextlib.suppress(ProcessLookupError):
            self._popen.send_signal(number)

    def wait(self, *, timeout_s: float) -> int:
        return self._popen.wait(timeout=timeout_s)

    def stop(self, number: int = signal.SIGTERM, *, timeout_s: float = 20, group: bool = True) -> int | None:
        """End the process with the signal *number*, with SIGKILL after *timeout_s*; with *group*, also the rest of its group."""
        if self.is_running():
            self.send(number)
            try:
                self._popen.wait(timeout=timeout_s)
            except subprocess.TimeoutExpired:
                self.send(signal.SIGKILL)
                self._popen.wait(timeout=10)
        if group:
            # The group's id is the leader's pid. The kernel does not reuse it while a member lives.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
        return self._popen.poll()

    def tail(self, lines: int = 40, *, leave_out: str | None = None) -> str:
        """Return the end of the log, without the lines that contain *leave_out*."""
        if not self.log.exists():
            return f"({self.name} wrote no log)"
        text = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        kept = [line for line in text if leave_out is None or leave_out not in line]
        return "\n".join([f"--- the end of {self.name}'s log ({self.log.name}) ---", *kept[-lines:]])


_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def _end_with_parent() -> None:
    """Ask the kernel for a SIGTERM when our parent dies for any reason, so that `kill -9` of a test run leaves no process."""
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
