"""Lets the code of jobs run as another user than the worker, when the worker is root (`run_as_user`).

The shim stays who it is: it writes the log and the result and holds the job's key. What it forks, the process in which the Dag is
parsed and the task runs, becomes the other user before anything of the Dag is imported. So the worker's credential, the
directories of jobs and the local gateway are out of its reach, and no file that it owns is ever read by root. It inherits no
open file of the worker's either: through a descriptor it could write what it can't open.
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
"""Exit code of a process that could not become the user: it must not go on as root."""


def fork_as(name: str) -> None:
    """From now on each process that this one forks is *name*.

    Raises:
        ValueError: there is no such user, or it is root.
        PermissionError: we aren't root.
    """
    os.register_at_fork(after_in_child=becoming(name))


def becoming(name: str) -> Callable[[], None]:
    """Return what makes the calling process *name* for good, or ends it. Raises: as :func:`fork_as`."""
    user = find(name)

    def become() -> None:
        if os.geteuid() == user.pw_uid:
            return  # a fork of the task's own
        try:
            os.initgroups(user.pw_name, user.pw_gid)
            os.setgid(user.pw_gid)
            os.setuid(user.pw_uid)
            _move_in(user)
            let_go_of_files()
        except BaseException:  # Python would print it and go on, as root
            traceback.print_exc()
            os._exit(NO_ACCESS)

    return become


def find(name: str) -> pwd.struct_passwd:
    """Return the user, if this process can become it.

    Raises:
        ValueError: there is no such user, or it is root.
        PermissionError: we aren't root.
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


def let_go_of_files() -> None:
    """Put `/dev/null` in the place of every open descriptor that is not one end of a socket pair: those are the Task SDK's own.

    Not closed: objects of this process still own the numbers, and would close a file that got one of them later.
    """
    null = os.open(os.devnull, os.O_RDWR)
    for number in [int(entry.name) for entry in DESCRIPTORS.iterdir()]:
        if number != null and not _may_stay(number):
            os.dup2(null, number, inheritable=number <= 2)


DESCRIPTORS = Path("/proc/self/fd") if Path("/proc/self/fd").is_dir() else Path("/dev/fd")
HARMLESS_DEVICES = tuple(Path(name) for name in ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom"))
"""Which everyone may open. TLS libraries keep some of them open."""


def _may_stay(number: int) -> bool:
    try:
        opened = os.fstat(number)
    except OSError:  # the listing's own descriptor: closed by now
        return True
    if stat.S_ISCHR(opened.st_mode):
        return opened.st_rdev in {path.stat().st_rdev for path in HARMLESS_DEVICES if path.exists()}
    return stat.S_ISSOCK(opened.st_mode) and _is_one_of_a_pair(number)


def _is_one_of_a_pair(number: int) -> bool:
    """Whether the socket is connected to one without an address. The daemon's gateway and a network's peer have one."""
    with socket.socket(fileno=os.dup(number)) as copy:
        try:
            return copy.family == socket.AF_UNIX and not copy.getsockname() and not copy.getpeername()
        except OSError:  # it listens, or its peer has gone
            return False


def _move_in(user: pwd.struct_passwd) -> None:
    """Leave the worker's directory, and the variables that name places there."""
    home = user.pw_dir if os.access(user.pw_dir, os.X_OK) else "/"
    os.chdir(home)
    os.environ.update(HOME=user.pw_dir, USER=user.pw_name, LOGNAME=user.pw_name)
    # An Airflow that the task starts would look for its configuration there.
    os.environ["AIRFLOW_HOME"] = f"{user.pw_dir}/airflow"
