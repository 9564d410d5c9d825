"""The calls that only POSIX systems have, in one place (a `windows.py` may come to stand beside it)."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path

OOM_SCORE = 300
"""Of 1000: a machine short of memory ends a task before the daemon that could report it."""


def detach(job_dir: Path) -> None:
    """Cut this process loose from whoever started it: own session, own signals, stdio to `shim.log`."""
    with suppress(PermissionError):  # it leads its session already
        os.setsid()
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    _redirect(os.open(os.devnull, os.O_RDONLY), 0)
    log = os.open(job_dir / "shim.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(log, 1)
    _redirect(log, 2)
    _volunteer_for_the_oom_killer()


def watch_exit(pid: int) -> int | None:
    """Return a descriptor that turns readable when *pid* has exited, or None where the system has none (macOS, Linux < 5.3)."""
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):
        return None


def _redirect(source: int, target: int) -> None:
    os.dup2(source, target)
    if source != target:
        os.close(source)


def _volunteer_for_the_oom_killer() -> None:
    # Before the supervisor makes the process non-dumpable: after that the file belongs to root.
    # Not Linux, or a container that hides it: the kernel's own judgement is good enough.
    with suppress(OSError, ValueError):
        score = Path("/proc/self/oom_score_adj")
        if int(score.read_text()) < OOM_SCORE:
            score.write_text(str(OOM_SCORE))
