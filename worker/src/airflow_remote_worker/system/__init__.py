"""What the worker needs from the operating system: one module for each kind of system, chosen here.

Callers import this package, never its modules. Sockets on this machine are in :mod:`.sockets`, systemd's protocol in
:mod:`.systemd`, and the unit file that installs the worker as a service in :mod:`.service_unit`.
"""

from __future__ import annotations

from airflow_remote_worker.local import run_as
from airflow_remote_worker.system.posix import (
    CAN_FORK,
    add_signal_handlers,
    birth_mark,
    boot_id,
    end_with_parent,
    find_closed,
    free_space,
    is_private,
    is_user,
    launch,
    lock,
    machine_id,
    open_pidfd,
    owner,
    reap_all,
    remove_signal_handlers,
    session_of,
    signal_group,
    sync_directory,
    user_id,
    user_name,
)

find_user = run_as.find_user

__all__ = [
    "CAN_FORK",
    "add_signal_handlers",
    "birth_mark",
    "boot_id",
    "end_with_parent",
    "find_closed",
    "find_user",
    "free_space",
    "is_private",
    "is_user",
    "launch",
    "lock",
    "machine_id",
    "open_pidfd",
    "owner",
    "reap_all",
    "remove_signal_handlers",
    "session_of",
    "signal_group",
    "sync_directory",
    "user_id",
    "user_name",
]
