"""Whether the code of a bundle has changed: a trigger host that started before must get no new triggers.

A host imports a module once. Bundles are directories that the site changes as it likes, so the only sign is on the disk.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import anyio

from airflow_remote_worker.clock import Clock
from airflow_remote_worker.jobs.apart import run_in_daemon_thread

LOOK_EVERY_S = 3.0
"""At most; a bundle of 1,000 files takes some milliseconds."""
LOOK_WITHIN_S = 30.0
"""A look that takes longer is at a network drive that is away."""
MOST_FILES = 20_000
"""Entries that are looked at; beyond that a bundle is no directory of Dags."""


def mark_of(root: str) -> str:
    """Return what changes when a `*.py` file below *root* is changed, added or removed: their number and newest change."""
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
            continue  # removed while we looked
    return f"{count}.{newest}"


class CodeStates:
    """The states of all bundles of this worker, each looked up now and then."""

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
