"""Functions for POSIX systems. A `windows.py` could offer the same ones. Only the package `system` imports this module."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import pwd
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

CAN_FORK = hasattr(os, "fork")


def lock(path: Path) -> int | None:
    """Take the exclusive lock on *path*, held until the returned descriptor is closed; None if another process has it."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    return fd


def sync_directory(path: Path) -> None:
    """Make a rename within *path* survive a power cut."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def add_signal_handlers(loop: asyncio.AbstractEventLoop, handle: Callable[[signal.Signals], None]) -> None:
    """Call *handle* in *loop* for SIGTERM and SIGINT."""
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, handle, signum)


def remove_signal_handlers(loop: asyncio.AbstractEventLoop) -> None:
    """Undo :func:`add_signal_handlers`."""
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.remove_signal_handler(signum)


def open_pidfd(pid: int) -> int | None:
    """Return a descriptor that becomes readable when *pid* exits; None without pidfd support (macOS, old kernels).

    Raises:
        ProcessLookupError: there is no such process.
    """
    opener = getattr(os, "pidfd_open", None)
    if opener is None:
        return None
    try:
        return int(opener(pid))
    except ProcessLookupError:
        raise
    except OSError:  # ENOSYS, EPERM under a seccomp profile
        return None


def birth_mark(pid: int) -> str | None:
    """Return an id that differs from that of a later process with the same pid; None without /proc.

    The id is the boot's id and the start time in clock ticks since boot. psutil's `create_time()` adds the boot's wall time,
    which changes when a machine without a battery-backed clock gets the time: a live shim would look like another process.
    """
    boot = boot_id()
    try:
        fields = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # The name (field 2) may hold spaces and parentheses; the rest follows its last ")". Start time is field 22.
    return f"{boot}:{fields.rpartition(')')[2].split()[19]}" if boot else None


def boot_id() -> str:
    """Return an id that changes at each start of the machine; empty where the system has no such id."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def session_of(pid: int) -> int | None:
    """Return the process session of *pid*; None if the process has ended."""
    try:
        return os.getsid(pid)
    except (ProcessLookupError, PermissionError):
        return None


def free_space(path: Path) -> tuple[int, int]:
    """Return how many more bytes and how many more files an unprivileged user can store on *path*'s disk."""
    found = os.statvfs(path)
    # Some file systems (btrfs) don't count files and report 0 of 0.
    return found.f_bavail * found.f_frsize, found.f_favail if found.f_files else sys.maxsize


def machine_id() -> str:
    """Return an id that stays the same on this machine and differs on another; empty where the system has no such id."""
    for path in ("/etc/machine-id", "/var/lib/dbus/machine-id"):
        with contextlib.suppress(OSError):
            if text := Path(path).read_text().strip():
                return text
    return ""


def signal_group(pid: int, signum: signal.Signals) -> None:
    """Signal the process group that *pid* leads; do nothing if it has ended."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signum)


def launch(
    argv: list[str], *, env: dict[str, str], output: Path, cwd: Path, pass_fds: tuple[int, ...] = ()
) -> subprocess.Popen[bytes]:
    """Start *argv* in its own session, detached from this terminal, with stdout and stderr appended to *output*."""
    fd = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        return subprocess.Popen(
            argv,
            env=env,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=fd,
            stderr=fd,
            pass_fds=pass_fds,
            start_new_session=True,
        )
    finally:
        os.close(fd)


def end_with_parent() -> None:
    """Let the kernel kill this process when its parent dies, for `preexec_fn`. Linux only; elsewhere it does nothing."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def reap_all() -> None:
    """Collect all children that have ended: a program that is executed does not know those of the program before."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def user_id() -> int:
    return os.getuid()


def user_name() -> str:
    """Return the name of the user that this process runs as, or the user's number if it has no name."""
    import pwd

    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def is_private(path: Path) -> bool:
    """Return whether *path* is a directory (not a link) that belongs to this user and is closed to all others."""
    found = path.lstat()
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077


def owner(path: Path) -> str:
    """Return the name of the user who owns *path*, or the user's number if it has no name."""
    number = path.stat().st_uid
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


def find_closed(path: Path, user: str) -> Path | None:
    """Return the first of *path* and its parents that the user can't enter, from the root on; None if the user can read *path*.

    Only modes are checked, not access control lists.
    """
    entry = pwd.getpwnam(user)
    groups = set(os.getgrouplist(user, entry.pw_gid))
    for place in (*reversed(path.parents), path):
        found = place.stat()
        if entry.pw_uid == found.st_uid:
            allowed = found.st_mode >> 6
        else:
            allowed = found.st_mode >> 3 if found.st_gid in groups else found.st_mode
        needed = 0o5 if place == path else 0o1
        if allowed & needed != needed:
            return place
    return None


def is_user(name: str) -> bool:
    """Return whether there is a user *name* on this machine."""
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True
