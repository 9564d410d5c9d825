"""The calls that only POSIX systems have, in one place, so that a `windows.py` can be added."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    # Imported where it is needed: this module is loaded before it is known that the interpreter has third-party packages.
    import psutil

OOM_SCORE = 300
"""Of 1000: a machine short of memory kills a task before the daemon, which reports that."""
WIND_DOWN_S = 5.0
"""Between SIGTERM and SIGKILL for processes that a job leaves; as long as Airflow gives the task itself."""
SETTLE_S = 0.3
"""How long processes that end with their parent (a `tee`, Python's resource tracker) may take; they don't count as left."""
_PR_SET_CHILD_SUBREAPER = 36


def detach(job_dir: Path) -> None:
    """Detach this process from the one that started it: its own session and signals, stdio to `shim.log`."""
    with suppress(PermissionError):  # it leads its session already
        os.setsid()
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    _redirect(os.open(os.devnull, os.O_RDONLY), 0)
    log = os.open(job_dir / "shim.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(log, 1)
    _redirect(log, 2)
    _raise_oom_score()
    _inherit_orphans()


def after_fork(call: Callable[[], None]) -> None:
    """Have every process that this one forks from now on make this *call* first."""
    os.register_at_fork(after_in_child=call)


def connect(path: str, *, timeout_s: float) -> socket.socket:
    """Return a connection to the daemon's socket at *path*, with *timeout_s* set. Raises: OSError."""
    connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connected.settimeout(timeout_s)
        connected.connect(path)
    except OSError:
        connected.close()
        raise
    return connected


def watch_exit(pid: int) -> int | None:
    """Return a descriptor that becomes readable when *pid* exits; None if the system lacks them (macOS, Linux < 5.3)."""
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):
        return None


def reap_orphans(but: int) -> None:
    """Reap children that have ended, except *but*, whose exit other code waits for."""
    for pid in _children():
        if pid != but:
            with suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)


class Leftovers:
    """Ends all descendants of this process that still run, by SIGTERM and then SIGKILL.

    Use it only after the task itself has been reaped. Orphans become our children in whatever session or group they are.
    """

    def __init__(self, wind_down_s: float = WIND_DOWN_S) -> None:
        self._wind_down_s = wind_down_s
        self._asked_at: float | None = None
        self._named: dict[int, str] = {}

    def step(self) -> bool:
        """Send the signals that are due now, without waiting; return whether no process is left."""
        import psutil

        reap_orphans(but=0)
        alive = _descendants()
        if not alive:
            return True
        now = time.monotonic()
        if self._asked_at is None:
            self._asked_at = now
        overdue = now - self._asked_at > self._wind_down_s
        for process in alive:
            if overdue or process.pid not in self._named:
                with suppress(psutil.Error):
                    self._named.setdefault(process.pid, f"{process.name()} ({process.pid})")
                    process.send_signal(signal.SIGKILL if overdue else signal.SIGTERM)
        return False

    def end(self) -> list[str]:
        """Wait until no process is left; return the ended ones as `name (pid)`."""
        settled_at = time.monotonic() + SETTLE_S
        while self._asked_at is None and _descendants() and time.monotonic() < settled_at:
            time.sleep(0.02)
        give_up_at = time.monotonic() + 2 * self._wind_down_s
        while not self.step():
            if time.monotonic() > give_up_at:  # stuck in the kernel: nothing can end it
                return [*self._named.values(), f"{len(_descendants())} of them still run"]
            time.sleep(0.02)
        return list(self._named.values())


leftovers = Leftovers()
"""For the one job that this process hosts."""


def _descendants() -> list[psutil.Process]:
    if not _children():
        return []  # the usual case, without inspecting every process of the machine
    import psutil

    with suppress(psutil.Error):
        return [child for child in psutil.Process().children(recursive=True) if _is_alive(child)]
    return []


def _is_alive(process: psutil.Process) -> bool:
    import psutil

    with suppress(psutil.Error):
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    return False


def _children() -> list[int]:
    try:
        return [int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]
    except OSError:  # not Linux, or a kernel built without it
        import psutil

        with suppress(psutil.Error):
            return [child.pid for child in psutil.Process().children()]
        return []


def _inherit_orphans() -> None:
    """Become the parent of processes that a task's process leaves (Linux; elsewhere init does, and we can't find them)."""
    _set_subreaper(1)


def _set_subreaper(value: int) -> None:
    if sys.platform == "linux":
        import ctypes

        with suppress(OSError, AttributeError):
            ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, value, 0, 0, 0)


def leave_orphans() -> None:
    """Undo :func:`_inherit_orphans`: a process that hosts many pieces of user code can't know which one left an orphan."""
    _set_subreaper(0)


def _redirect(source: int, target: int) -> None:
    os.dup2(source, target)
    if source != target:
        os.close(source)


def _raise_oom_score() -> None:
    # Before the supervisor makes the process non-dumpable: after that, the file belongs to root.
    # Where it does not exist (not Linux, or a container that hides it), the kernel's default is good enough.
    with suppress(OSError, ValueError):
        score = Path("/proc/self/oom_score_adj")
        if int(score.read_text()) < OOM_SCORE:
            score.write_text(str(OOM_SCORE))
