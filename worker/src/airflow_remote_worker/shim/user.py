"""Lets the code of jobs run as another user than the worker, when the worker is root (`run_as_user`).

The shim stays who it is: it writes the log and the result and holds the job's key. What it forks, the process in which the Dag is
parsed and the task runs, becomes the other user before anything of the Dag is imported. So the worker's credential, the
directories of jobs and the local gateway are out of its reach, and no file that it owns is ever read by root.
"""

from __future__ import annotations

import os
import pwd
import traceback
from collections.abc import Callable

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


def _move_in(user: pwd.struct_passwd) -> None:
    """Leave the worker's directory, and the variables that name places there."""
    home = user.pw_dir if os.access(user.pw_dir, os.X_OK) else "/"
    os.chdir(home)
    os.environ.update(HOME=user.pw_dir, USER=user.pw_name, LOGNAME=user.pw_name)
    # An Airflow that the task starts would look for its configuration there.
    os.environ["AIRFLOW_HOME"] = f"{user.pw_dir}/airflow"
