"""The runtimes that central sends: fetched, made, tested, and used side by side.

Each wanted runtime has one task: it fetches the tree, makes the environment and the bytecode, then keeps a zygote and runs the
canary (:mod:`.runtime`). They are prepared one after the other. The zygote of a runtime that is not wanted any more is closed
once its successor is ready; jobs that run in it are not disturbed, and its files stay while a job uses them or central keeps it.

The trees are :mod:`..code.bundles`'s, the environments :mod:`..code.runtimes`'s.
"""

from __future__ import annotations

import logging
import shutil
import threading
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import anyio
import anyio.abc
from airflow_remote_protocol.messages import (
    MAX_RUNTIMES,
    MAX_SHORT_TEXT,
    HeldRuntime,
    Offer,
    Runtime,
    RuntimePhase,
    RuntimeRef,
    Runtimes,
)

from airflow_remote_worker.clock import Backoff, Clock
from airflow_remote_worker.code.acceptance import RUNTIME, Check, Proven, accept_all, note_nothing
from airflow_remote_worker.code.bundles import BundleCode, CodeUnavailable, Origin
from airflow_remote_worker.code.runtimes import CannotMake, Environments, Ready, environment_of
from airflow_remote_worker.daemon_thread import run_in_daemon_thread
from airflow_remote_worker.errors import WorkerError
from airflow_remote_worker.jobs.launcher import Launcher
from airflow_remote_worker.jobs.process import CannotHost
from airflow_remote_worker.jobs.runtime import RuntimeKeeper
from airflow_remote_worker.jobs.sent_runtime import Place, SentRuntime
from airflow_remote_worker.jobs.site import RuntimeGone
from airflow_remote_worker.lease import Lease
from airflow_remote_worker.local.job_files import CanaryResult
from airflow_remote_worker.state.spool import ShimRecord

log = logging.getLogger(__name__)

T = TypeVar("T")

MAKE_WITHIN_S = 7200.0
"""An environment takes 0.1 s, its bytecode up to an hour on a small board."""
RETRY_FLOOR_S = 5.0
RETRY_CEILING_S = 600.0


MakeLauncher = Callable[[Path, dict[str, str], Path], Launcher]
"""From interpreter, environment variables of tasks, and the zygote's log."""


class SentRuntimes:
    """All runtimes that this worker has from central.

    Args:
        site_env: the site's variables for tasks (`runtime.env`).
        root: the directory for logs and canaries of runtimes; only for the daemon's user.
        check: whether the site accepts a runtime.
        on_proven: called with the tree of a runtime that has passed its canary.
    """

    def __init__(
        self,
        *,
        code: BundleCode,
        environments: Environments,
        make_launcher: MakeLauncher,
        site_env: Mapping[str, str],
        root: Path,
        clock: Clock,
        check: Check = accept_all,
        on_proven: Proven = note_nothing,
    ) -> None:
        self.on_change: Callable[[], None] = _do_nothing
        self._check = check
        self._on_proven = on_proven
        self._code = code
        self._environments = environments
        self._make_launcher = make_launcher
        self._site_env = dict(site_env)
        self._root = root
        self._clock = clock
        self._sent: dict[str, SentRuntime] = {}
        """By digest: those that are wanted, and those that still serve."""
        self._listed: Runtimes | None = None
        self._is_supported: bool | None = None
        self._kept: dict[str, Ready] = {}
        """Those in `kept` that are here and have passed their canary."""
        self._returning: frozenset[str] = frozenset()
        """Those wanted that were ready before this daemon started."""
        self._others: dict[str, Launcher] = {}
        """Of runtimes that only jobs from earlier use: without a zygote."""
        self._settings: Mapping[str, str] = {}
        self._preparing = anyio.CapacityLimiter(1)
        self._tidying = anyio.Event()
        self._tasks: anyio.abc.TaskGroup | None = None

    async def run(self) -> None:
        """Prepare and keep the wanted runtimes, until cancelled."""
        await _in_thread(self._environments.prepare)
        async with anyio.create_task_group() as self._tasks:
            for sent in self._sent.values():
                self._tasks.start_soon(self._keep, sent, name=f"runtime {sent.text}")
            while True:
                self._tidying = anyio.Event()
                trees = self._code.all
                await _in_thread(partial(self._environments.prune, trees))
                self._others = {digest: launcher for digest, launcher in self._others.items() if digest in trees}
                await self._note_kept()
                await self._tidying.wait()

    # What central wants

    def on_session(self, *, supported: bool) -> None:
        """Note whether central sends runtimes at all."""
        self._is_supported = supported
        if not supported:
            self.receive(Runtimes("", []))
        self.on_change()

    def receive(self, listed: Runtimes) -> None:
        """Have these runtimes ready from now on."""
        self._listed = listed
        wanted = {ref.tree.digest: ref for ref in listed.wanted}
        for digest, ref in wanted.items():
            known = self._sent.get(digest)
            if known and known.ref.name == ref.name:
                known.ref = ref  # a rollback gives the same tree another serial
            else:
                if known:  # under another name it needs another signature
                    self._end(known)
                self._begin(SentRuntime(ref))
        for sent in list(self._sent.values()):
            if sent.digest not in wanted and sent.held().phase is not RuntimePhase.READY:
                self._end(sent)
        self._settle()
        self._tidying.set()

    def _begin(self, sent: SentRuntime) -> None:
        self._sent[sent.digest] = sent
        if self._tasks is not None:
            self._tasks.start_soon(self._keep, sent, name=f"runtime {sent.text}")

    def _end(self, sent: SentRuntime) -> None:
        if self._sent.get(sent.digest) is sent:
            del self._sent[sent.digest]
        if sent.launcher is not None:
            sent.launcher.close()
            self._others[sent.digest] = sent.launcher  # for jobs that are being prepared
        sent.scope.cancel()

    def _settle(self) -> None:
        """End the runtimes that are not needed any more, and hold the trees of all others."""
        wanted = {ref.tree.digest: ref.name for ref in self._listed.wanted} if self._listed else {}
        waiting = {name for digest, name in wanted.items() if self._sent[digest].held().phase is not RuntimePhase.READY}
        for sent in list(self._sent.values()):
            if sent.digest not in wanted and sent.ref.name not in waiting:
                log.info("runtime %s: its successor is ready; it gets no more jobs", sent.text)
                self._end(sent)
        self._code.release(self)
        for digest in {*self._sent, *(self._listed.kept if self._listed else ())}:
            self._code.hold(self, digest)
        self.on_change()

    def tidy(self) -> None:
        """Remove the environments of trees that are gone: the set of trees has changed."""
        self._tidying.set()

    async def _note_kept(self) -> None:
        kept = set(self._listed.kept if self._listed else ()) & self._code.all
        untested = {sent.digest for sent in self._sent.values() if not sent.tested.is_set()} & self._code.all

        def look() -> dict[str, Ready]:
            found = {digest: self._environments.ready(digest) for digest in kept | untested}
            return {digest: ready for digest, ready in found.items() if ready and ready.passed}

        found = await _in_thread(look)
        self._returning = frozenset(found.keys() & untested)
        before, self._kept = self._kept, {digest: ready for digest, ready in found.items() if digest in kept}
        if before != self._kept:
            self.on_change()

    # One runtime

    async def _keep(self, sent: SentRuntime) -> None:
        """Prepare the runtime and keep it tested, until it isn't needed any more."""
        with sent.scope:
            async with anyio.create_task_group() as tasks:
                backoff = Backoff(self._clock, floor_s=RETRY_FLOOR_S, ceiling_s=RETRY_CEILING_S)
                while True:
                    async with self._preparing:
                        if keeper := await self._prepare(sent):
                            tasks.start_soon(keeper.run, name=f"test of runtime {sent.text}")
                            await sent.tested.wait()
                            break
                    await self._clock.sleep(backoff.next_s())
        if sent.scope.cancelled_caught and sent.digest not in self._sent:
            shutil.rmtree(self._place(sent.digest).canary.parent, ignore_errors=True)

    async def _prepare(self, sent: SentRuntime) -> RuntimeKeeper | None:
        """Make the runtime ready for its canary; return None if that must be tried again later."""

        def note(detail: str) -> None:
            self._note(sent, RuntimePhase.PREPARING, detail or "code")

        try:
            if refused := await self._check(sent.digest, RUNTIME, sent.ref.name):
                log.error("runtime %s is not used: %s", sent.text, refused)
                self._note(sent, RuntimePhase.FAILED, refused)
                return None
            note("code")
            tree = await self._code.ensure(sent.ref.tree, Origin.of_runtime(sent.ref), self, note)
            await self._make(sent.digest, tree, note)
            sent.launcher = await self._make_launcher_of(sent.digest, tree)
            place = self._place(sent.digest)
            place.canary.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        except (CodeUnavailable, WorkerError) as error:  # of the way to central: no fault of the runtime
            log.warning("runtime %s: %s", sent.text, error)
            note(str(error))
            return None
        except (CannotMake, OSError) as error:  # NoRoom and TimeoutError too
            reason = str(error) or "the disk did not answer"
            log.error("runtime %s can't be made: %s", sent.text, reason)
            self._note(sent, RuntimePhase.FAILED, reason)
            return None
        note("canary")
        sent.keeper = RuntimeKeeper(sent.launcher, place.canary, self._clock)
        sent.keeper.on_change = partial(self._on_tested, sent)
        return sent.keeper

    async def _make(self, digest: str, tree: Path, note: Callable[[str], None]) -> None:
        """Raises: CannotMake, OSError."""
        environments = self._environments
        ready = await _in_thread(partial(environments.ready, digest))
        if ready is None:
            note("environment")
            ready = await _in_thread(partial(environments.make, digest, tree))
        if not ready.compiled:
            note("bytecode")
            has_ended = threading.Event()
            try:
                if not await _in_thread(partial(environments.compile, digest, tree, stop=has_ended.is_set)):
                    log.warning("the bytecode of a runtime could not be made; its jobs start more slowly")
            finally:
                has_ended.set()

    async def _make_launcher_of(self, digest: str, tree: Path) -> Launcher:
        """Raises: CannotMake, OSError."""
        env = await _in_thread(partial(environment_of, tree, self._site_env))
        launcher = self._make_launcher(self._environments.python_of(digest), env, self._place(digest).zygote_log)
        launcher.use_task_settings(self._settings)
        return launcher

    def _place(self, digest: str) -> Place:
        directory = self._root / digest[:16]
        return Place(directory / "zygote.log", directory / "canary")

    def _note(self, sent: SentRuntime, phase: RuntimePhase, detail: str) -> None:
        sent.phase, sent.detail = phase, detail
        self.on_change()

    def _on_tested(self, sent: SentRuntime) -> None:
        """Note that the canary has ended, or that jobs fail before they begin."""
        if self._sent.get(sent.digest) is not sent or sent.keeper is None:
            return
        if sent.keeper.found is not None:
            self._store_result(sent, sent.keeper.found)
            if not sent.tested.is_set():
                sent.tested.set()
                if not sent.keeper.found.trouble:
                    log.info("runtime %s is ready: Task SDK %s", sent.text, sent.keeper.found.task_sdk)
        self._settle()

    def _store_result(self, sent: SentRuntime, found: CanaryResult) -> None:
        environments = self._environments
        if found.trouble:
            environments.note_failed(sent.digest)
        else:
            self._on_proven(sent.digest, RUNTIME, sent.ref.name)
            environments.note_passed(sent.digest, airflow=found.airflow, task_sdk=found.task_sdk, version=found.python)

    # Use

    async def ensure(self, offer: Offer, note: Callable[[str], None]) -> Path | None:
        """Make sure that the runtime of a job is here and undamaged; return its interpreter. It is held for the job's lease.

        Raises:
            RuntimeGone: it isn't here.
            OSError, TimeoutError: the disk fails, or does not answer.
        """
        ref = offer.runtime
        if ref is None:
            raise RuntimeGone("the job has no runtime from central, and this worker has none of its own (runtime.python)")
        digest = ref.tree.digest
        gone = RuntimeGone(f"the runtime {ref.name!r} {ref.serial} is not on this worker any more")
        if self._launcher_for(digest) is None and await _in_thread(partial(self._environments.ready, digest)) is None:
            raise gone
        try:
            if refused := await self._check(digest, RUNTIME, ref.name):
                self._withdraw(ref, refused)  # it has expired, is older than one that works, or was signed as another runtime
                raise RuntimeGone(refused)
            tree = await self._code.ensure(ref.tree, Origin.of_runtime(ref), Lease(offer.job_id, offer.epoch), note)
            if self._launcher_for(digest) is None:
                launcher = await self._make_launcher_of(digest, tree)
                launcher.close()  # no zygote: few jobs, if any, come after this one
                self._others[digest] = launcher
        except (CodeUnavailable, CannotMake, WorkerError) as error:
            raise RuntimeGone(str(error)) from None
        python = self._environments.python_of(digest)
        if not python.exists():
            raise gone
        return python

    def _withdraw(self, ref: RuntimeRef, refused: str) -> None:
        """Take no more jobs for a runtime that the site does not accept any more; if it is wanted, begin again with the check."""
        log.error("runtime %s %d gets no more jobs: %s", ref.name, ref.serial, refused)
        self._kept.pop(ref.tree.digest, None)
        sent = self._sent.get(ref.tree.digest)
        if sent is not None and sent.ref.name == ref.name:
            self._end(sent)
            if self._listed and any(one.tree.digest == sent.digest for one in self._listed.wanted):
                self._begin(SentRuntime(sent.ref))
        self.on_change()

    async def launch(self, job_dir: Path, *, runtime: str) -> ShimRecord:
        """Start the shim of the job in *job_dir*.

        Raises:
            CannotHost: nothing was started.
            StartUncertain: a process may have been started.
        """
        launcher = self._launcher_for(runtime)
        if launcher is None:
            raise CannotHost(f"the runtime with the tree {runtime[:12] or '(none)'} is not on this worker any more")
        self._place(runtime).zygote_log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return await launcher.launch(job_dir)

    def _launcher_for(self, runtime: str) -> Launcher | None:
        sent = self._sent.get(runtime)
        return sent.launcher if sent and sent.launcher else self._others.get(runtime)

    def use_task_settings(self, values: Mapping[str, str]) -> None:
        """Start every later process with these settings of central, in all runtimes."""
        self._settings = dict(values)
        for launcher in (*(sent.launcher for sent in self._sent.values()), *self._others.values()):
            if launcher is not None:
                launcher.use_task_settings(values)

    def note_begun(self, runtime: str) -> None:
        """Note that the own code of a job in *runtime* has begun."""
        if (sent := self._sent.get(runtime)) and sent.keeper:
            sent.keeper.note_begun()

    def note_failure(self, runtime: str, reason: str) -> None:
        """Note that a job in *runtime* has failed before its own code began."""
        if (sent := self._sent.get(runtime)) and sent.keeper:
            sent.keeper.note_failure(reason)

    # For the session, for central and for users

    @property
    def ready(self) -> frozenset[str]:
        """The runtimes in which jobs can run."""
        return frozenset(held.tree for held in self.held() if held.phase is RuntimePhase.READY)

    @property
    def on_probation(self) -> frozenset[str]:
        """Those in which one job at a time is taken."""
        return frozenset(sent.digest for sent in self._sent.values() if sent.keeper and sent.keeper.on_probation)

    @property
    def unfit(self) -> str:
        """Why no job may be taken now; empty: jobs may be taken."""
        base = self._environments.base
        if base.trouble:
            return base.trouble
        if self.ready:
            return ""
        if self._is_supported is False:
            return "this central sends no runtimes: update it, or set runtime.python to an environment with the Airflow Task SDK"
        if self._listed is None:
            return "central has not been asked for runtimes yet"
        if not self._listed.wanted:
            return (
                f"central has no runtime for this worker's platform {base.platform}: build one there (airflow remote runtimes "
                f"build default --platform {base.platform}), or set runtime.python to an environment with the Airflow Task SDK"
            )
        held = ((sent.text, sent.held()) for sent in self._sent.values())
        return "no runtime is ready: " + "; ".join(f"{text} {one.phase.value}: {one.detail}" for text, one in held)

    @property
    def trouble(self) -> str:
        """As :attr:`unfit`."""
        return self.unfit

    def held(self) -> list[HeldRuntime]:
        """Return the runtimes that are here or prepared, for central."""
        found = [sent.held() for sent in self._sent.values()]
        # A restart of the daemon must not bring earlier versions back for the seconds until the wanted ones are tested again.
        is_returning = any(not sent.tested.is_set() for sent in self._sent.values() if sent.digest in self._returning)
        for digest, ready in self._kept.items():
            if digest not in self._sent and not is_returning:
                found.append(HeldRuntime(digest, RuntimePhase.READY, ready.airflow, ready.task_sdk, ready.version))
        return found[:MAX_RUNTIMES]

    def report(self) -> Runtime | None:
        """Return what to report as the site's runtime; None: nothing, because central knows all from :meth:`held`."""
        if self._environments.base.trouble or self._is_supported is False:
            return Runtime(trouble=self.unfit[:MAX_SHORT_TEXT])
        return None

    def describe(self) -> dict[str, Any]:
        """Return the keys about runtimes in `status.json`."""
        runtimes = []
        for sent in self._sent.values():
            held, zygote = sent.held(), sent.launcher.runtime if sent.launcher else None
            about = {"name": sent.ref.name, "serial": sent.ref.serial, "tree": sent.digest, "phase": held.phase.value}
            runtimes.append({**about, "detail": held.detail, "task_sdk": held.task_sdk, "pid": zygote.pid if zygote else None})
        return {"runtime": None, "runtime_tried_at": None, "runtimes": runtimes}

    def logs(self) -> list[Path]:
        """Return the logs of zygotes."""
        return [self._place(digest).zygote_log for digest in self._sent]


async def _in_thread(call: Callable[[], T]) -> T:
    return await run_in_daemon_thread(call, within_s=MAKE_WITHIN_S, name="runtime")


def _do_nothing() -> None:
    """The default listener."""
