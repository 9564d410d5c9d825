"""The daemon's part of releases: fetches, installs and tests the one that central wants, and hands over to it.

It never runs a release itself: it puts the release on trial in `release.json` and lets the daemon restart, and
:mod:`.handover` does the rest. A release on trial proves itself here too, by an answered poll.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

import anyio
from airflow_remote_protocol.messages import MAX_SHORT_TEXT, HeldRelease, ReleasePhase, WantedRelease

from airflow_remote_worker.clock import Backoff, Clock
from airflow_remote_worker.code.acceptance import RELEASE, WORKER, Check, Proven, note_nothing
from airflow_remote_worker.code.bundles import BundleCode, CodeUnavailable, Origin
from airflow_remote_worker.code.runtimes import CannotMake
from airflow_remote_worker.config import Config
from airflow_remote_worker.daemon_thread import run_in_daemon_thread
from airflow_remote_worker.errors import WorkerError
from airflow_remote_worker.lifecycle import Lifecycle, Phase
from airflow_remote_worker.system import unpacked
from airflow_remote_worker.update import record as records
from airflow_remote_worker.update.record import MAX_TRIES, Record, Release
from airflow_remote_worker.update.releases import Releases, running_tree
from airflow_remote_worker.update.self_test import ANSWER_WITHIN_S, SelfTestFailed, ask

log = logging.getLogger(__name__)

T = TypeVar("T")

RETRY_FLOOR_S = 5.0
RETRY_CEILING_S = 600.0


class ReleaseKeeper:
    """The releases of this worker while its daemon runs.

    Args:
        arguments: the command line of this daemon without the program.
        is_trial: this release is on trial.
        check: whether the site accepts a release.
    """

    def __init__(
        self,
        *,
        config: Config,
        releases: Releases,
        code: BundleCode,
        lifecycle: Lifecycle,
        clock: Clock,
        arguments: Sequence[str],
        is_trial: bool,
        check: Check,
        on_proven: Proven = note_nothing,
    ) -> None:
        self.on_change: Callable[[], None] = _do_nothing
        self.running = running_tree()
        """The tree of the release that runs; empty: the one that the site has installed."""
        self._config = config
        self._releases = releases
        self._code = code
        self._lifecycle = lifecycle
        self._clock = clock
        self._arguments = arguments
        self._is_trial = is_trial
        self._check = check
        self._on_proven = on_proven
        self._record = Record()
        self._wanted: WantedRelease | None = None
        self._phase, self._detail = ReleasePhase.PREPARING, ""
        self._has_other = anyio.Event()
        self._started_at = clock.monotonic()
        self._is_excused = False
        """The last trial was given up while central could not be reached by this release either."""

    def load(self) -> None:
        """Read what is known, and hold its trees. Blocks."""
        self._note(self._releases.load())

    def _note(self, record: Record) -> None:
        self._record = record
        self._code.release(self)
        for tree in record.trees | ({self.running} if self.running else set()):
            self._code.hold(self, tree)

    async def run(self) -> None:
        """Bring the wanted release, whenever central names another one, until cancelled."""
        if self._is_trial:
            await anyio.sleep_forever()  # one at a time
        try:
            await _in_thread(self._prune)
        except OSError as error:  # the disk fails, or doesn't answer; the next start tries again
            log.warning("earlier releases can't be removed: %s", error)
        while True:
            self._has_other = anyio.Event()
            async with anyio.create_task_group() as bringing:
                bringing.start_soon(self._bring_until_done)
                await self._has_other.wait()
                bringing.cancel_scope.cancel()

    def _prune(self) -> None:
        self._releases.prune(self._record.trees | {self.running})
        for path in unpacked.prune(self._config.state):
            log.info("%s was removed: no process runs from this earlier copy of the worker", path)

    # What central says

    def receive(self, wanted: WantedRelease | None) -> None:
        """Run this release from now on. None: keep the one that runs."""
        if wanted != self._wanted:
            self._wanted, tried = wanted, self._record.candidate
            is_tried = self._is_trial and tried is not None and wanted is not None and tried.serial == wanted.serial
            self._set(ReleasePhase.TRYING if is_tried else ReleasePhase.PREPARING, "")
            self._has_other.set()

    def on_session(self, wanted: WantedRelease | None) -> None:
        """Note that a session is open, in which central has named this release. A release whose trial failed is judged now."""
        if self._record.ended and not self._is_trial:
            self._store(self._judge)
        self.receive(wanted)

    def note_answer(self) -> None:
        """Note that central has answered a poll, which proves a release on trial."""
        if self._is_trial:
            self._store(self._prove)

    def _store(self, change: Callable[[], None]) -> None:
        try:
            change()
        except OSError as error:  # the disk is full; the next answer, or the next session, tries again
            log.warning("release.json can't be stored: %s", error)

    def _prove(self) -> None:
        release = self._record.candidate
        if release is not None:
            self._note(self._releases.store(records.prove(self._record)))
            log.info("%s has reached central; it is the current one from now on", release.text)
        self._lifecycle.restart("the new release has reached central")

    def _judge(self) -> None:
        candidate, late_s = self._record.candidate, self._clock.monotonic() - self._started_at
        if candidate is None or self._is_excused:
            return
        if late_s > self._config.update.prove_within_s and self._record.tries < MAX_TRIES:
            log.info("%s may be tried again: central could not be reached without it either", candidate.text)
            self._is_excused = True
        else:
            log.error("%s failed here and is not tried again: %s", candidate.text, self._record.ended)
            self._note(self._releases.store(records.blame(self._record)))
        self._has_other.set()

    # One release

    async def _bring_until_done(self) -> None:
        backoff = Backoff(self._clock, floor_s=RETRY_FLOOR_S, ceiling_s=RETRY_CEILING_S)
        while self._wanted is not None and not await self._bring(self._wanted):
            await self._clock.sleep(backoff.next_s())

    async def _bring(self, wanted: WantedRelease) -> bool:
        """Prepare the release and hand over to it; return whether nothing is left to do."""
        try:
            return await self._advance(wanted)
        except (CodeUnavailable, WorkerError) as error:  # of the way to central: no fault of the release
            log.warning("release %s (serial %d): %s", wanted.version, wanted.serial, error)
            self._set(ReleasePhase.PREPARING, str(error))
        except OSError as error:  # NoRoom and TimeoutError too
            log.error("release %s (serial %d) can't be installed: %s", wanted.version, wanted.serial, error)
            self._set(ReleasePhase.PREPARING, str(error) or "the disk did not answer")
        return False

    async def _advance(self, wanted: WantedRelease) -> bool:
        release = Release.of(wanted)
        if release.tree == self.running:
            if self._record.current and self._record.current.serial != release.serial:
                self._note(self._releases.store(records.renumber(self._record, release.serial)))
            self._set(ReleasePhase.RUNNING, "")
            if not self._is_trial:
                self._on_proven(release.tree, RELEASE, WORKER)
            return True
        if reason := self._config.refuses_releases or await self._check(release.tree, RELEASE, WORKER):
            self._set(ReleasePhase.REFUSED, reason)
            return bool(self._config.refuses_releases)
        if reason := self._reason_against(release):
            self._set(ReleasePhase.FAILED, reason)
            return True
        try:
            await self._install(wanted, release)
        except (CannotMake, SelfTestFailed) as error:
            log.error("%s is not used: %s", release.text, error)
            self._note(self._releases.store(records.note_failed(self._record, release.serial, str(error))))
            self._set(ReleasePhase.FAILED, str(error))
            return True
        return self._hand_over(release)

    def _reason_against(self, release: Release) -> str:
        if reason := self._record.failed.get(str(release.serial)):
            return reason
        if self._record.ended and not self._is_excused:
            return f"its trial has ended: {self._record.ended}" if self._record.candidate == release else ""
        return ""

    async def _install(self, wanted: WantedRelease, release: Release) -> None:
        """Raises: CodeUnavailable, CannotMake, SelfTestFailed, WorkerError, OSError."""

        def note(detail: str) -> None:
            self._set(ReleasePhase.PREPARING, detail or "code")

        note("code")
        await self._code.ensure(wanted.tree, Origin.of_release(wanted), self, note)
        note("environment")
        await _in_thread(partial(self._releases.make, release.tree))
        if trouble := await _in_thread(partial(self._releases.trouble_of, release.tree)):
            raise CannotMake(trouble)
        note("self-test")
        await _in_thread(partial(ask, self._releases.command(release.tree, ["self-test", *self._arguments[1:]])))

    def _hand_over(self, release: Release) -> bool:
        """Put the release on trial and restart; return False if this daemon ends anyway."""
        if self._lifecycle.phase is not Phase.SERVING:
            return False
        current = self._record.current
        if not (current and current.tree == release.tree):  # else it was proven before: its files were damaged
            self._note(self._releases.store(records.begin(self._record, release)))
        self._set(ReleasePhase.TRYING, "")
        self._lifecycle.restart(f"{release.text} is installed and takes over")
        return True

    # For central and for users

    def _set(self, phase: ReleasePhase, detail: str) -> None:
        if (phase, detail) != (self._phase, self._detail):
            self._phase, self._detail = phase, detail
            self.on_change()

    def held(self) -> HeldRelease | None:
        """Return what has become of the release that central named, for central."""
        wanted = self._wanted
        if wanted is None:
            return None
        return HeldRelease(wanted.serial, wanted.tree.digest, self._phase, self._detail[:MAX_SHORT_TEXT])

    def describe(self) -> dict[str, object]:
        """Return what `status.json` says about releases."""
        current, wanted = self._record.current, self._wanted
        shown = {"tree": self.running, "serial": current.serial if current and current.tree == self.running else None}
        if wanted is None:
            return {**shown, "wanted": None}
        about = {"version": wanted.version, "serial": wanted.serial, "phase": self._phase.value, "detail": self._detail}
        return {**shown, "wanted": about}


async def _in_thread(call: Callable[[], T]) -> T:
    return await run_in_daemon_thread(call, within_s=2 * ANSWER_WITHIN_S, name="release")


def _do_nothing() -> None:
    """The default listener."""
