"""The operating system, as the worker needs it: one module for each kind of system, chosen here.

Callers import this package; only it knows the modules. Sockets on this machine are in :mod:`.sockets`, systemd's protocol in
:mod:`.systemd`, and the unit file that installs the worker as a service in :mod:`.service_unit`.
"""

from __future__ import annotations

from airflow_remote_worker.local import run_as
from airflow_remote_worker.system.posix import (
    CAN_FORK,
    birth_mark,
    boot_id,
    free,
    is_private,
    is_user,
    launch,
    lock,
    machine_id,
    off_signal,
    on_signal,
    open_pidfd,
    owner,
    session_of,
    signal_group,
    sync_directory,
    user_id,
    user_name,
)

find_task_user = run_as.find

__all__ = [
    "CAN_FORK",
    "birth_mark",
    "boot_id",
    "find_task_user",
    "free",
    "is_private",
    "is_user",
    "launch",
    "lock",
    "machine_id",
    "off_signal",
    "on_signal",
    "open_pidfd",
    "owner",
    "session_of",
    "signal_group",
    "sync_directory",
    "user_id",
    "user_name",
]
