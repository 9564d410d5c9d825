"""Runs the code of jobs as another user than the worker, when the worker is root (`run_as_user`).

The shim stays root: it writes the log and the result and holds the job's key. The process that it forks to parse the Dag and run
the task becomes the other user before it imports anything of the Dag. So that process can't reach the worker's credential, the
directories of jobs or the local gateway, and root reads no file that the user owns. It inherits no open file of the worker
either: through a descriptor it could write to a file that it can't open.
"""

from __future__ import annotations

import os
import pwd
import socket
import stat
import traceback
from collections.abc import Callable
from pathlib import Path

NO_ACCESS = 126
"""Exit code of a process that could not become the user and must not go on as root."""


def fork_children_as(name: str) -> None:
    """Make each process that this one forks from now on run as the user *name*.

    Raises:
        ValueError: there is no such user, or it is root.
        PermissionError: this process isn't root.
    """
    os.register_at_fork(after_in_child=make_user_switcher(name))


def make_user_switcher(name: str) -> Callable[[], None]:
    """Return a function that makes its process the user *name* for good, or ends it. Raises: as :func:`fork_children_as`."""
    user = find_user(name)

    def become() -> None:
        if os.geteuid() == user.pw_uid:
            return  # a process that the task itself forked
        try:
            os.initgroups(user.pw_name, user.pw_gid)
            os.setgid(user.pw_gid)
            os.setuid(user.pw_uid)
            _enter_home(user)
            release_files()
        except BaseException:  # Python would print it and go on, as root
            traceback.print_exc()
            os._exit(NO_ACCESS)

    return become


def find_user(name: str) -> pwd.struct_passwd:
    """Return the user *name*, if this process can become that user.

    Raises:
        ValueError: there is no such user, or it is root.
        PermissionError: this process isn't root.
    """
    try:
        user = pwd.getpwnam(name)
    except KeyError:
        raise ValueError(f"there is no user {name!r} on this machine") from None
    if user.pw_uid == 0:
        raise ValueError(f"{name!r} is root itself; name a user without rights")
    if os.geteuid() != 0:
        raise PermissionError("only a worker that runs as root can run tasks as another user")
    return user


def release_files() -> None:
    """Replace every open descriptor by `/dev/null`, except ends of socket pairs, which belong to the Task SDK.

    They are not closed: objects of this process still hold the numbers, and would close a file that got one of them later.
    """
    null = os.open(os.devnull, os.O_RDWR)
    for number in [int(entry.name) for entry in DESCRIPTORS.iterdir()]:
        if number != null and not _may_stay_open(number):
            os.dup2(null, number, inheritable=number <= 2)


DESCRIPTORS = Path("/proc/self/fd") if Path("/proc/self/fd").is_dir() else Path("/dev/fd")
HARMLESS_DEVICES = tuple(Path(name) for name in ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom"))
"""Everyone may open these. TLS libraries keep some of them open."""


def _may_stay_open(number: int) -> bool:
    try:
        opened = os.fstat(number)
    except OSError:  # the descriptor of the directory listing, closed by now
        return True
    if stat.S_ISCHR(opened.st_mode):
        return opened.st_rdev in {path.stat().st_rdev for path in HARMLESS_DEVICES if path.exists()}
    return stat.S_ISSOCK(opened.st_mode) and _is_socket_pair_end(number)


def _is_socket_pair_end(number: int) -> bool:
    """Return whether the socket is connected to a peer without an address. The daemon's gateway and network peers have one."""
    with socket.socket(fileno=os.dup(number)) as copy:
        try:
            return copy.family == socket.AF_UNIX and not copy.getsockname() and not copy.getpeername()
        except OSError:  # it listens, or its peer has closed
            return False


def _enter_home(user: pwd.struct_passwd) -> None:
    """Replace the working directory and the environment variables that point into the worker's directories."""
    home = user.pw_dir if os.access(user.pw_dir, os.X_OK) else "/"
    os.chdir(home)
    os.environ.update(HOME=user.pw_dir, USER=user.pw_name, LOGNAME=user.pw_name)
    # An Airflow that the task starts looks for its configuration there.
    os.environ["AIRFLOW_HOME"] = f"{user.pw_dir}/airflow"
