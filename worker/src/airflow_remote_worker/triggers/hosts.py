"""Starts the trigger hosts of this worker, finds one for each trigger, adopts, watches and ends them.

A host is for one bundle, one user, one runtime and one state of the bundle's code: one tree, or one state of the site's own
directory. This module does not depend on central or on how triggers end: that is :mod:`.keeper`'s. The connection to a host is
:mod:`.conversation`'s.
"""

from __future__ import annotations

import logging
import secrets
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol

import anyio
import anyio.abc
import anyio.to_thread

from airflow_remote_worker.clock import Clock
from airflow_remote_worker.errors import Damaged
from airflow_remote_worker.jobs.process import CannotHost, StartUncertain, find_shim, is_alive, kill, wait_for_exit
from airflow_remote_worker.jobs.site import Site
from airflow_remote_worker.jobs.strays import end_strays
from airflow_remote_worker.local import frames, job_files
from airflow_remote_worker.state.files import read, store
from airflow_remote_worker.state.spool import ShimRecord
from airflow_remote_worker.triggers.code_state import CodeStates
from airflow_remote_worker.triggers.host import HostedCode, TriggerHost
from airflow_remote_worker.triggers.suspects import Suspects
from airflow_remote_worker.triggers.trigger import Trigger

log = logging.getLogger(__name__)

MOST_HOSTS = 32
"""Each takes about 10 MB beyond the zygote. A site has few bundles; the others are for code that changes while triggers wait."""
MOST_ALONE = 4
PROBATION_S = 30.0
"""How long a suspect runs alone before it is cleared."""
IDLE_S = 60.0
"""How long a host without triggers is kept: a forked process costs little, while an import of the Dags may take seconds."""
MEET_WITHIN_S = 60.0
"""A host that has not connected by then hangs: it connects before it imports anything of the bundle."""
LOOK_EVERY_S = 5.0


class TooManyHosts(Exception):
    """This worker may not start another host; the text says why and what to do."""


class Starter(Protocol):
    """Starts processes. Implemented by the classes in :mod:`airflow_remote_worker.jobs.runtimes`."""

    async def launch(self, job_dir: Path, *, runtime: str) -> ShimRecord: ...


class Hosts:
    """All hosts of this worker, in directories below *root*."""

    def __init__(self, root: Path, *, site: Site, starter: Starter, clock: Clock) -> None:
        self.all: dict[str, TriggerHost] = {}
        self.on_died: Callable[[TriggerHost, list[Trigger], str], None] = lambda host, triggers, how: None
        """Called when a host has ended, with the triggers that it still had; *how* describes the end for users."""
        self.on_change: Callable[[], None] = _do_nothing
        self.task_settings: Callable[[], str] = lambda: ""
        """Returns a text that changes with central's settings for tasks: a process keeps the settings that it started with."""
        self._root = root
        self._site = site
        self._starter = starter
        self._clock = clock
        self._states = CodeStates(clock)
        self._suspects = Suspects()
        self._probation = anyio.Semaphore(MOST_ALONE)
        self._starting: dict[str, anyio.Event] = {}
        """By host id: set once the start of the host has succeeded or failed."""
        self._locks: dict[HostedCode, anyio.Lock] = {}
        self._tasks: anyio.abc.TaskGroup | None = None

    async def run(self, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Watch the hosts, until cancelled. They keep running then."""
        async with anyio.create_task_group() as self._tasks:
            task_status.started()
            while True:
                await self._clock.sleep(LOOK_EVERY_S)
                self._check_hosts()

    async def reserve(self, trigger: Trigger, code: HostedCode) -> TriggerHost:
        """Return the host that shall run *trigger*; it stays assigned until :meth:`release`.

        Raises:
            CannotHost, OSError: no host can be started.
            TooManyHosts: no further host may be started.
            TimeoutError: the disk with the bundle does not answer.
        """
        # A tree never changes. The site's own directory does, without notice.
        state = code.tree or await self._states.of(code.bundle_path)
        mark = f"{state} {self.task_settings()}"
        suspect = self._suspects.is_suspect(trigger.lease.job_id, self._clock.monotonic())
        if suspect and len(self.all) < MOST_HOSTS:
            await self._probation.acquire()
            try:
                host = await self._start_in_own_task(code, mark, is_alone=True)
            except BaseException:
                self._probation.release()
                raise
            self._assign(trigger, host)
            self._start_soon(self._end_probation(host), name=f"probation of {host.spec.host_id}")
            return host
        async with self._locks.setdefault(code, anyio.Lock()):
            host = self._find(code, mark) or await self._start_in_own_task(code, mark)
            self._assign(trigger, host)
            return host

    def release(self, trigger: Trigger) -> None:
        """Remove the trigger from its host: it does not run there any more, or never did."""
        if (host := trigger.host) is not None:
            trigger.host = None
            host.triggers.pop(trigger.lease, None)
            if access := host.accesses.pop(trigger.lease, None):
                access.stopped.set()
            if not host.triggers:
                host.idle_since = self._clock.monotonic()

    def claim(self, trigger: Trigger, host: TriggerHost) -> None:
        """Assign *trigger*, which an earlier daemon started, to the host that runs it."""
        self._assign(trigger, host)

    def adopt(self) -> None:
        """Adopt the hosts that an earlier daemon has left."""
        for path in sorted(self._root.iterdir()):
            try:
                spec = read(job_files.HostSpec, path / job_files.HOST_SPEC)
                if spec.host_id != path.name:
                    raise Damaged(f"{path} holds the notes of {spec.host_id}")
            except (Damaged, FileNotFoundError, NotADirectoryError) as error:
                log.error("trigger host %s: %s; it is ended, and its triggers start again", path.name, error)
                self._start_soon(self._clean_up(path, _process_of(path)), name=f"end of {path.name}")
                continue
            process = _process_of(path) or find_shim(path / "shim.log")
            if process is None or not is_alive(process):
                self._start_soon(self._clean_up(path, process), name=f"end of {path.name}")
                continue
            log.info("trigger host %s: adopted, pid %d", spec.host_id, process.pid)
            self._register(TriggerHost(path, spec, process, self._clock.monotonic(), idle_since=self._clock.monotonic()))

    async def wait_until_started(self, host_id: str) -> None:
        """Return when the start of the host has returned: its process may connect before that."""
        if starting := self._starting.get(host_id):
            await starting.wait()

    async def wait_until_settled(self, within_s: float) -> None:
        """Return when every adopted host has connected or died, or *within_s* has passed."""
        with anyio.move_on_after(within_s):
            for host in list(self.all.values()):
                await host.settled.wait()

    def logs(self) -> Iterable[Path]:
        """Return the paths of the hosts' own logs."""
        return [host.dir / "shim.log" for host in self.all.values()]

    # Finding and starting

    def _find(self, code: HostedCode, mark: str) -> TriggerHost | None:
        for host in self.all.values():
            if host.code == code and host.spec.code == mark and not host.is_alone and not host.is_leaving:
                return host
        return None

    def _assign(self, trigger: Trigger, host: TriggerHost) -> None:
        trigger.host, trigger.host_id = host, host.spec.host_id
        host.triggers[trigger.lease] = trigger
        host.idle_since = None

    async def _start_in_own_task(self, code: HostedCode, mark: str, *, is_alone: bool = False) -> TriggerHost:
        """Call :meth:`_start` in a task of its own: the stop of a trigger meanwhile must not interrupt the zygote's fork."""
        started: list[TriggerHost] = []
        failed: list[Exception] = []
        done = anyio.Event()

        async def start() -> None:
            try:
                started.append(await self._start(code, mark, is_alone=is_alone))
            except (CannotHost, TooManyHosts, OSError) as error:
                failed.append(error)
            done.set()

        self._start_soon(start(), name=f"start of a trigger host for {code.bundle_name}")
        await done.wait()
        if failed:
            raise failed[0]
        return started[0]

    async def _start(self, code: HostedCode, mark: str, *, is_alone: bool = False) -> TriggerHost:
        if len(self.all) >= MOST_HOSTS:
            raise TooManyHosts(
                f"this worker has {MOST_HOSTS} trigger hosts, which is the limit: the Dags' code has changed that often while "
                "triggers wait, or there are that many bundles; it can start another one when a host has ended"
            )
        host_id = f"host-{secrets.token_hex(6)}"
        path = self._root / host_id
        spec = job_files.HostSpec(
            host_id=host_id,
            key=secrets.token_hex(32),
            socket_path=str(self._site.socket_path),
            worker_name=self._site.worker_name,
            bundle_name=code.bundle_name,
            bundle_path=code.bundle_path,
            run_as_user=code.user,
            code=mark,
            contact_path=str(self._site.contact_path),
            tree=code.tree,
            runtime=code.runtime,
            release=self._site.release,
            signed=self._site.needs_signed_code(),
        )
        path.mkdir(mode=0o700)
        started = self._starting[host_id] = anyio.Event()
        try:
            store(path / job_files.HOST_SPEC, spec)
            process = await self._launch(path, code.runtime)
            host = TriggerHost(path, spec, process, self._clock.monotonic(), is_alone=is_alone)
            self._register(host)
        except BaseException:
            # If a process was started nevertheless, it ends by itself without its host.json.
            shutil.rmtree(path, ignore_errors=True)
            raise
        finally:
            del self._starting[host_id]
            started.set()
        try:
            store(path / "shim.json", process)
        except OSError as error:
            log.warning("trigger host %s: its process %d can't be stored: %s", host_id, process.pid, error)
        log.info("trigger host %s: started for bundle %s, pid %d", host_id, code.bundle_name, process.pid)
        return host

    async def _launch(self, path: Path, runtime: str) -> ShimRecord:
        try:
            return await self._starter.launch(path, runtime=runtime)
        except StartUncertain as error:
            if process := await anyio.to_thread.run_sync(find_shim, path / "shim.log"):
                return process
            raise CannotHost(f"a trigger host could not be started: {error}") from None

    def _register(self, host: TriggerHost) -> None:
        self.all[host.spec.host_id] = host
        for tree in (host.spec.tree, host.spec.runtime, host.spec.release):
            if tree and self._site.code:
                self._site.code.hold(host.spec.host_id, tree)
        self._start_soon(self._watch(host), name=f"watch {host.spec.host_id}")
        self.on_change()

    def _start_soon(self, work: object, *, name: str) -> None:
        assert self._tasks is not None, "the hosts are not running"

        async def do() -> None:
            await work  # type: ignore[misc]

        self._tasks.start_soon(do, name=name)

    # Watching and ending

    async def _watch(self, host: TriggerHost) -> None:
        await wait_for_exit(host.process)
        self.all.pop(host.spec.host_id, None)
        if self._site.code:
            self._site.code.release(host.spec.host_id)
        host.outgoing = None
        host.settled.set()
        triggers = list(host.triggers.values())
        how = "its process was killed, ran out of memory, or code of a trigger ended it"
        if triggers:
            log.error("trigger host %s ended with %d triggers: %s\n%s", host.spec.host_id, len(triggers), how, host.log_tail())
            job_ids = [trigger.lease.job_id for trigger in triggers]
            if not host.is_alone and self._suspects.note_death(host.code, job_ids, self._clock.monotonic()):
                log.warning("a second trigger host of bundle %s died: its triggers start alone", host.spec.bundle_name)
            for trigger in triggers:
                self.release(trigger)
        await self._clean_up(host.dir, host.process)
        self.on_died(host, triggers, how)
        self.on_change()

    async def _clean_up(self, path: Path, process: ShimRecord | None) -> None:
        """End the processes that a dead or unknown host has left, and remove its directory."""
        if ended := await anyio.to_thread.run_sync(end_strays, path.name, process):
            log.warning("trigger host %s: ended the processes that it left: %s", path.name, ", ".join(ended))
        await anyio.to_thread.run_sync(lambda: shutil.rmtree(path, ignore_errors=True))

    async def _end_probation(self, host: TriggerHost) -> None:
        try:
            await self._clock.sleep(PROBATION_S)
        finally:
            self._probation.release()
        if host.spec.host_id in self.all:
            host.is_alone = False
            self._suspects.clear(lease.job_id for lease in host.triggers)

    def _check_hosts(self) -> None:
        now = self._clock.monotonic()
        for host in list(self.all.values()):
            if not host.has_connected and now - host.since > MEET_WITHIN_S:
                log.error("trigger host %s did not connect within %.0f s; it is ended", host.spec.host_id, MEET_WITHIN_S)
                kill(host.process)
            elif host.idle_since is not None and now - host.idle_since > IDLE_S and not host.is_leaving:
                # It leaves only if it has no trigger, and it gets no new ones from now on.
                host.is_leaving = host.send(frames.Leave())
            elif host.is_leaving and host.idle_since is not None and now - host.idle_since > IDLE_S + MEET_WITHIN_S:
                kill(host.process)


def _process_of(path: Path) -> ShimRecord | None:
    try:
        return read(ShimRecord, path / "shim.json")
    except (Damaged, FileNotFoundError, NotADirectoryError):
        return None


def _do_nothing() -> None:
    """The default listener."""
