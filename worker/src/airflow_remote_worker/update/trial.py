"""A release on trial, from its own side: it takes no jobs, reaches central, and ends.

The process that tries it (:mod:`.guard`) holds the other end of a pipe. When that end is closed, because the trial's time is up
or that process has died, the trial ends; jobs run on.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, MutableMapping

TRIAL = "AIRFLOW_REMOTE_TRIAL"
"""Environment variable of a release on trial: the descriptor of its end of the pipe."""
OF_SYSTEMD = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
"""systemd watches the process that tries the release."""


def environment_of_trial(environ: Mapping[str, str], descriptor: int) -> dict[str, str]:
    """Return the environment for a release on trial."""
    return {**without_systemd(environ), TRIAL: str(descriptor)}


def without_systemd(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment for a child that must not talk to systemd."""
    return {name: value for name, value in environ.items() if name not in OF_SYSTEMD}


def take_descriptor(environ: MutableMapping[str, str]) -> int | None:
    """Return this process's end of the pipe, and remove the variable; None: this process is no trial."""
    text = environ.pop(TRIAL, "")
    if not text.isdecimal():
        return None
    os.set_inheritable(int(text), False)
    return int(text)


async def wait_for_end(descriptor: int) -> None:
    """Return when the other end has been closed."""
    ended, loop = asyncio.Event(), asyncio.get_running_loop()
    loop.add_reader(descriptor, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(descriptor)
