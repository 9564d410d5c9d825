"""Decides whether tasks can run here: keeps a zygote ready, runs the canary at the start and after each change, keeps its result.

A runtime that fails is tried again at growing intervals, and at once when its packages, settings or plugins change.
"""

from __future__ import annotations

import contextlib
import logging
import os
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import anyio

from airflow_remote_worker.clock import Backoff, Clock
from airflow_remote_worker.daemon_thread import run_in_daemon_thread
from airflow_remote_worker.jobs.breaker import Breaker
from airflow_remote_worker.jobs.canary import run_canary
from airflow_remote_worker.jobs.launcher import Launcher
from airflow_remote_worker.local import job_files

log = logging.getLogger(__name__)

LOOK_EVERY_S = 15.0
"""How soon a change of the runtime is noticed. A check costs a few dozen `stat` calls."""
LOOK_WITHIN_S = 10.0
MAX_FILES = 2000
"""Files below the watched directories."""
NOT_TRIED = "the runtime is still being tried"


@dataclass(frozen=True)
class Snapshot:
    """The state of a runtime's files, for comparison with a later one."""

    watched: tuple[str, ...]
    """The paths that the canary named."""
    files: dict[str, tuple[int, int]]
    """Modification time (ns) and size, by path."""


class RuntimeKeeper:
    """Tests the runtime of *launcher*; *directory* is the canary's."""

    def __init__(self, launcher: Launcher, directory: Path, clock: Clock) -> None:
        self.found: job_files.CanaryResult | None = None
        """The result of the last canary; None until the first one has ended."""
        self.tried_at: float | None = None
        """When it ended (wall clock)."""
        self.doubt = ""
        """Why the runtime is not trusted although its canary passed: jobs fail before their code begins. Else empty."""
        self.on_change: Callable[[], None] = _do_nothing
        self._launcher = launcher
        self._directory = directory
        self._clock = clock
        self._breaker = Breaker()
        self._doubted = anyio.Event()
        self._is_looking = False

    @property
    def trouble(self) -> str:
        """Why tasks can't run here; empty while they can, and until the first canary has ended."""
        return (self.found.trouble if self.found else "") or self.doubt

    @property
    def unfit(self) -> str:
        """Why no jobs may be taken now; empty if jobs may be taken."""
        return NOT_TRIED if self.found is None else self.trouble

    @property
    def on_probation(self) -> bool:
        """Whether to take one job at a time, until one has begun."""
        return not self._breaker.is_closed

    async def run(self) -> None:
        """Keep the runtime tested, until cancelled."""
        backoff = Backoff(self._clock, floor_s=1, ceiling_s=300)
        try:
            while True:
                seen = await self._look()
                self._note(await run_canary(self._launcher, self._directory))
                if seen is None or seen.watched != self._watched():
                    seen = await self._look()
                if self.doubt:
                    await self._pause(seen)
                elif self.trouble or not self._launcher.has_zygote:
                    await self._wait(backoff.next_s(), seen)
                else:
                    backoff.reset()
                    await self._watch(seen)
                    await self._clock.sleep(backoff.next_s())  # a zygote that dies repeatedly must not use a whole processor
        finally:
            self._launcher.close()

    def note_begun(self) -> None:
        """Note that a job's own code has begun."""
        if self._breaker.failures:
            self._breaker.note_begun()
            self.on_change()

    def note_failure(self, reason: str) -> None:
        """Note that a job has failed before its own code began, for *reason*."""
        if not self.doubt and self._breaker.note_failure():
            self.doubt = (
                f"the last {self._breaker.failures} jobs failed before their own code began, the last one with: {reason}; "
                f"the runtime is tested again, and a single job is taken in {self._breaker.pause_s:.0f} s"
            )
            log.error("no more jobs are taken: %s", self.doubt)
            self._doubted.set()
            self.on_change()

    def _note(self, found: job_files.CanaryResult) -> None:
        before, self.found, self.tried_at = self.trouble, found, self._clock.wall()
        if found.trouble and found.trouble != before:
            log.error("tasks can't run here: %s", found.trouble)
        elif before and not self.trouble:
            log.info("tasks can run here again: the runtime passed its canary")
        self.on_change()

    async def _pause(self, seen: Snapshot | None) -> None:
        await self._wait(self._breaker.pause_s, seen)
        self._doubted, self.doubt = anyio.Event(), ""
        self.on_change()

    async def _watch(self, seen: Snapshot | None) -> None:
        """Return when the zygote has ended, the runtime or central's settings have changed, or too many jobs have failed."""
        async with anyio.create_task_group() as watching:

            async def ended() -> None:
                await self._launcher.wait_for_zygote_end()
                watching.cancel_scope.cancel()

            async def doubted() -> None:
                await self._doubted.wait()
                await self._launcher.retire()
                watching.cancel_scope.cancel()

            async def changed() -> None:
                await self._until_changed(seen)
                log.info("the runtime has changed; testing it again")
                await self._launcher.retire()
                watching.cancel_scope.cancel()

            async def outdated() -> None:
                await self._launcher.wait_for_outdated_zygote()  # the next start replaces it
                watching.cancel_scope.cancel()

            for wait in (ended, doubted, changed, outdated):
                watching.start_soon(wait)

    async def _wait(self, seconds: float, seen: Snapshot | None) -> None:
        """Return after *seconds*, or earlier if the runtime changes."""
        async with anyio.create_task_group() as waiting:

            async def slept() -> None:
                await self._clock.sleep(seconds)
                waiting.cancel_scope.cancel()

            async def changed() -> None:
                await self._until_changed(seen)
                waiting.cancel_scope.cancel()

            waiting.start_soon(slept)
            waiting.start_soon(changed)
        await self._launcher.retire()

    async def _until_changed(self, seen: Snapshot | None) -> None:
        """Return when the runtime has changed since *seen* and has then stayed the same for one check."""
        before, changed = seen, False
        while True:
            await self._clock.sleep(LOOK_EVERY_S)
            now = await self._look()
            if now is None:
                continue
            if now == before and changed:
                return
            changed = changed or (before is not None and now != before)
            before = now

    async def _look(self) -> Snapshot | None:
        """Return the state of the runtime's files; None if it can't be read."""
        if self._is_looking:
            return None  # the last call still waits for an unreachable drive
        python, watched = self._launcher.python, self._watched()

        def look() -> Snapshot:
            try:
                return Snapshot(watched, take_snapshot((*_default_places(python), *watched)))
            finally:
                self._is_looking = False

        self._is_looking = True
        try:
            return await run_in_daemon_thread(look, within_s=LOOK_WITHIN_S, name="look at the runtime")
        except (TimeoutError, OSError):  # its drive can't be reached; a job that needs it reports that
            return None

    def _watched(self) -> tuple[str, ...]:
        return tuple(self.found.watched) if self.found else ()


def take_snapshot(places: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Return modification time (ns) and size of *places*, and of the files in those that aren't a directory of packages."""
    snapshot: dict[str, tuple[int, int]] = {}
    for place in map(Path, dict.fromkeys(places)):
        _add_file(snapshot, place)
        if place.name in ("site-packages", "dist-packages"):
            continue  # each installation adds or removes an entry, which changes the directory itself
        for root, directories, files in os.walk(place):
            directories[:] = [name for name in directories if name != "__pycache__"]
            for name in files:
                if len(snapshot) >= MAX_FILES:
                    return snapshot
                _add_file(snapshot, Path(root, name))
    return snapshot


def _add_file(snapshot: dict[str, tuple[int, int]], path: Path) -> None:
    with contextlib.suppress(OSError):
        found = path.stat()
        snapshot[str(path)] = (found.st_mtime_ns, 0 if stat.S_ISDIR(found.st_mode) else found.st_size)


def _default_places(python: Path | None) -> list[str]:
    """Return the paths to watch of a runtime whose canary has not named any: it may be unable to."""
    if python is None:
        return []
    prefix = python.parent.parent
    packages = [*prefix.glob("lib/python3*/site-packages"), *prefix.glob("Lib/site-packages")]
    return [str(path) for path in (python, prefix / "pyvenv.cfg", *packages)]


def _do_nothing() -> None:
    """The default listener."""
