"""Whether tasks can run here: keeps a zygote ready, runs the canary at the start and after each change, and says what is wrong.

A runtime that fails is tried again, later each time, and at once when its packages, its settings or its plugins change.
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
from airflow_remote_worker.jobs.apart import run_in_daemon_thread
from airflow_remote_worker.jobs.breaker import Breaker
from airflow_remote_worker.jobs.canary import run_canary
from airflow_remote_worker.jobs.launcher import Launcher
from airflow_remote_worker.local import job_files

log = logging.getLogger(__name__)

LOOK_EVERY_S = 15.0
"""How soon a change of the runtime is seen. A look costs a few dozen `stat` calls."""
LOOK_WITHIN_S = 10.0
MOST_LOOKED_AT = 2000
"""Files below the watched directories."""
NOT_TRIED = "the runtime is still being tried"


@dataclass(frozen=True)
class Looks:
    """What a runtime looks like from outside, to be compared."""

    watched: tuple[str, ...]
    """What the canary has said to watch."""
    files: dict[str, tuple[int, int]]


class RuntimeKeeper:
    """Tries the runtime of *launcher*; *directory* is the canary's."""

    def __init__(self, launcher: Launcher, directory: Path, clock: Clock) -> None:
        self.found: job_files.CanaryResult | None = None
        """What the last canary found; None: none has ended yet."""
        self.tried_at: float | None = None
        """When that was (wall clock)."""
        self.doubt = ""
        """Why the runtime is not trusted although its canary passed: jobs fail before their code begins."""
        self.on_change: Callable[[], None] = _nobody
        self._launcher = launcher
        self._directory = directory
        self._clock = clock
        self._breaker = Breaker()
        self._doubted = anyio.Event()
        self._is_looking = False

    @property
    def trouble(self) -> str:
        """Why tasks can't run here; empty while they can, or nobody knows yet."""
        return (self.found.trouble if self.found else "") or self.doubt

    @property
    def unfit(self) -> str:
        """Why no job may be taken now; empty: jobs may."""
        return NOT_TRIED if self.found is None else self.trouble

    @property
    def on_probation(self) -> bool:
        """Whether one job at a time is enough, until one has begun."""
        return not self._breaker.is_closed

    async def run(self) -> None:
        """Until cancelled."""
        backoff = Backoff(self._clock, floor_s=1, ceiling_s=300)
        try:
            while True:
                seen = await self._look()
                self._note(await run_canary(self._launcher, self._directory))
                if seen is None or seen.watched != self._watched():
                    seen = await self._look()
                if self.doubt:
                    await self._take_a_break(seen)
                elif self.trouble or not self._launcher.has_zygote:
                    await self._wait(backoff.next_s(), seen)
                else:
                    backoff.reset()
                    await self._watch(seen)
                    await self._clock.sleep(backoff.next_s())  # a zygote that dies again and again must not fill a processor
        finally:
            self._launcher.close()

    def note_begun(self) -> None:
        """A job's own code has begun."""
        if self._breaker.failures:
            self._breaker.note_begun()
            self.on_change()

    def note_failure(self, reason: str) -> None:
        """A job has failed before its own code began."""
        if not self.doubt and self._breaker.note_failure():
            self.doubt = (
                f"the last {self._breaker.failures} jobs failed before their own code began, the last one so: {reason}; "
                f"the runtime is tried again, and a single job in {self._breaker.pause_s:.0f} s"
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

    async def _take_a_break(self, seen: Looks | None) -> None:
        await self._wait(self._breaker.pause_s, seen)
        self._doubted, self.doubt = anyio.Event(), ""
        self.on_change()

    async def _watch(self, seen: Looks | None) -> None:
        """Return when the zygote has ended, the runtime or central's settings have changed, or jobs have failed too often."""
        async with anyio.create_task_group() as watching:

            async def ended() -> None:
                await self._launcher.zygote_ended()
                watching.cancel_scope.cancel()

            async def doubted() -> None:
                await self._doubted.wait()
                await self._launcher.retire()
                watching.cancel_scope.cancel()

            async def changed() -> None:
                await self._until_changed(seen)
                log.info("the runtime has changed; trying it again")
                await self._launcher.retire()
                watching.cancel_scope.cancel()

            async def outdated() -> None:
                await self._launcher.zygote_outdated()  # the next start replaces it
                watching.cancel_scope.cancel()

            for wait in (ended, doubted, changed, outdated):
                watching.start_soon(wait)

    async def _wait(self, seconds: float, seen: Looks | None) -> None:
        """Sleep, but not through a change of the runtime."""
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

    async def _until_changed(self, seen: Looks | None) -> None:
        """Return when the runtime has changed since it was *seen*, and has then stayed the same for a moment."""
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

    async def _look(self) -> Looks | None:
        """Return what the runtime looks like; None if that can't be told."""
        if self._is_looking:
            return None  # the last look still waits for a drive that is away
        python, watched = self._launcher.python, self._watched()

        def look() -> Looks:
            try:
                return Looks(watched, looks_of((*_own_places(python), *watched)))
            finally:
                self._is_looking = False

        self._is_looking = True
        try:
            return await run_in_daemon_thread(look, within_s=LOOK_WITHIN_S, name="look at the runtime")
        except (TimeoutError, OSError):
            return None

    def _watched(self) -> tuple[str, ...]:
        return tuple(self.found.watched) if self.found else ()


def looks_of(places: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Return time of change and size of *places*, and of the files in those that aren't a directory of packages."""
    looks: dict[str, tuple[int, int]] = {}
    for place in map(Path, dict.fromkeys(places)):
        _note_looks(looks, place)
        if place.name in ("site-packages", "dist-packages"):
            continue  # each install makes or removes an entry here, which changes the directory itself
        for root, directories, files in os.walk(place):
            directories[:] = [name for name in directories if name != "__pycache__"]
            for name in files:
                if len(looks) >= MOST_LOOKED_AT:
                    return looks
                _note_looks(looks, Path(root, name))
    return looks


def _note_looks(looks: dict[str, tuple[int, int]], path: Path) -> None:
    with contextlib.suppress(OSError):
        found = path.stat()
        looks[str(path)] = (found.st_mtime_ns, 0 if stat.S_ISDIR(found.st_mode) else found.st_size)


def _own_places(python: Path | None) -> list[str]:
    """Return what can be watched of a runtime that has not said what to watch: it may be unable to."""
    if python is None:
        return []
    prefix = python.parent.parent
    packages = [*prefix.glob("lib/python3*/site-packages"), *prefix.glob("Lib/site-packages")]
    return [str(path) for path in (python, prefix / "pyvenv.cfg", *packages)]


def _nobody() -> None:
    """The default listener."""
