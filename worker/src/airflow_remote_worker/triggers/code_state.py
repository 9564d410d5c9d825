"""Detects changes of a bundle's code: a trigger host that started before a change must get no new triggers.

A host imports a module once. The site changes the files of a bundle without notice, so they are compared on disk.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import anyio

from airflow_remote_worker.clock import Clock
from airflow_remote_worker.daemon_thread import run_in_daemon_thread

LOOK_EVERY_S = 3.0
"""The least time between two checks; a bundle of 1,000 files takes a few milliseconds."""
LOOK_WITHIN_S = 30.0
"""A check that takes longer waits for an unreachable network drive."""
MOST_FILES = 20_000
"""Entries that are checked; a larger directory is not one of Dags."""


def mark_of(root: str) -> str:
    """Return number and newest modification time of the `*.py` files below *root*: they show changes, additions and removals."""
    count, newest, looked_at = 0, 0, 0
    waiting = [root]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    looked_at += 1
                    if looked_at > MOST_FILES:
                        return f"{count}+.{newest}"
                    if entry.is_dir(follow_symlinks=False):
                        if entry.name != "__pycache__" and not entry.name.startswith("."):
                            waiting.append(entry.path)
                    elif entry.name.endswith(".py"):
                        count += 1
                        newest = max(newest, entry.stat().st_mtime_ns)
        except OSError:
            continue  # removed meanwhile
    return f"{count}.{newest}"


class CodeStates:
    """The states of all bundles of this worker, cached for `LOOK_EVERY_S`."""

    def __init__(self, clock: Clock, look: Callable[[str], str] = mark_of) -> None:
        self._clock = clock
        self._look = look
        self._known: dict[str, tuple[float, str]] = {}
        self._locks: dict[str, anyio.Lock] = {}

    async def of(self, root: str) -> str:
        """Return the state of the code below *root*.

        Raises:
            TimeoutError: the disk does not answer.
        """
        async with self._locks.setdefault(root, anyio.Lock()):
            known = self._known.get(root)
            now = self._clock.monotonic()
            if known is None or now - known[0] >= LOOK_EVERY_S:
                mark = await run_in_daemon_thread(
                    lambda: self._look(root), within_s=LOOK_WITHIN_S, name=f"look at the code in {root}"
                )
                self._known[root] = known = (now, mark)
            return known[1]
