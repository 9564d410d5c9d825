"""The Remote Worker daemon: makes all parts, connects them and runs them. Start at :func:`serve`; each part has its own module.

link ── poll ──► session (decides) ──► supervisor ──► shims (outlive us)
  ▲                                        │             │ unix socket
  ├── deliver, ship, report ◄──────────────┘             │
  └── gateway ◄───────────────────────────────────────────

The parts don't know each other: they call back, and `Daemon.__init__` connects the callbacks. Of one event, the parts are
notified in the order of this table:

event                           callback                            who is notified
the worker takes a job          `supervisor.on_held`                deliver, ship, report; the contact file; status; usage
a job's process has ended       `supervisor.on_freed`               poll (a slot is free); drain; status
it has ended, with an outcome   `supervisor.on_outcome`             its runtime, which may stop taking jobs
a job is over for this worker   `supervisor.on_closed`              logs; drain; status
a trigger is taken              `triggers.on_held`                  the contact file
a trigger has ended             `triggers.on_freed`                 poll, if no trigger was free before; drain; status
the list of triggers changed    `triggers.on_change`                drain; status
a trigger host has died         `hosts.on_died`                     triggers
the list of hosts changed       `hosts.on_change`                   status
a session is open               `poll.on_session`                   the loops that need a capability; intent, see below; rotate
the intent has changed          `poll.on_intent`                    rotate; lifecycle (restart); triggers (drain, leave)
central sent task settings      `poll.on_task_settings`             task settings, which restart the zygotes
central wants other runtimes    `poll.on_runtimes`                  runtimes, which prepare them
central wants another release   `poll.on_release`                   releases, which install it and hand over
central has answered a poll     `poll.on_answer`                    releases: that proves a new one
the set of trees changed        `code.on_change`                    inventory; runtimes, which remove what belonged to them
central has answered            `poll.on_contact`                   systemd's watchdog; the contact file; status
the credential is unknown       `link.on_fallback`                  rotate: the previous one is used, and replaced
a runtime was tested, or more   `runtimes.on_change`                session; poll, if more or less is free; reports; status
the disk fills or is free again `disk.on_change`                    session and poll, if free again; status
a task has started, or calls    `JobAccess` (see `_LocalAccess`)    session; runtime; supervisor
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import signal
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import anyio
import msgspec
from airflow_remote_protocol.messages import (
    Intent,
    IntentMode,
    Inventory,
    JobPhase,
    Report,
    Session,
    SessionRequest,
    Stop,
    StopReason,
)
from airflow_remote_protocol.statements import Kind
from airflow_remote_protocol.version import PROTOCOL_VERSION, Capability, agree

from airflow_remote_worker import __version__, system
from airflow_remote_worker.clock import CLOCK_DIFFERS_S, Clock, SystemClock, describe_clock_offset
from airflow_remote_worker.code.acceptance import Check
from airflow_remote_worker.code.bundles import BundleCode, Limits
from airflow_remote_worker.code.fetch import Incoming, PackFetcher
from airflow_remote_worker.code.interpreter import find, find_own
from airflow_remote_worker.code.runtimes import Environments
from airflow_remote_worker.code.trees import TreeStore
from airflow_remote_worker.code.trust import Trust
from airflow_remote_worker.config import Config, ConfigError
from airflow_remote_worker.errors import WorkerError
from airflow_remote_worker.facts import capabilities, facts
from airflow_remote_worker.gateway import JobAccess, LocalGateway
from airflow_remote_worker.jobs.job import Job
from airflow_remote_worker.jobs.launcher import Launcher, scrub_environment
from airflow_remote_worker.jobs.logs import LogKeeper
from airflow_remote_worker.jobs.runtime import RuntimeKeeper
from airflow_remote_worker.jobs.runtimes import SentRuntimes
from airflow_remote_worker.jobs.site import Site
from airflow_remote_worker.jobs.site_runtime import SiteRuntime
from airflow_remote_worker.jobs.supervisor import Supervisor, make_shim_record
from airflow_remote_worker.jobs.usage import Meter
from airflow_remote_worker.lease import Lease, runtime_of
from airflow_remote_worker.lifecycle import EXIT_FAILED, EXIT_OK, Lifecycle, Phase
from airflow_remote_worker.link.attempts import Attempts
from airflow_remote_worker.link.client import END_SESSION_S, Link
from airflow_remote_worker.link.network import Network
from airflow_remote_worker.local import frames
from airflow_remote_worker.loops.deliver import DeliverLoop
from airflow_remote_worker.loops.end import EndLoop
from airflow_remote_worker.loops.end_triggers import EndTriggersLoop
from airflow_remote_worker.loops.inventory import InventoryLoop
from airflow_remote_worker.loops.poll import PollLoop
from airflow_remote_worker.loops.report import ReportLoop
from airflow_remote_worker.loops.rotate import RotateLoop
from airflow_remote_worker.loops.runtime import RuntimeLoop
from airflow_remote_worker.loops.ship_task_logs import ShipLoop
from airflow_remote_worker.loops.ship_triggers import ShipTriggersLoop
from airflow_remote_worker.loops.ship_worker_log import ShipWorkerLogLoop
from airflow_remote_worker.loops.usage import UsageLoop
from airflow_remote_worker.session import WorkerSession
from airflow_remote_worker.state.directory import Membership, State
from airflow_remote_worker.state.free_space import Disk
from airflow_remote_worker.state.spool import Spool
from airflow_remote_worker.state.task_settings import TaskSettingsKeeper
from airflow_remote_worker.state.trusted_keys import TrustFile
from airflow_remote_worker.state.worker_log import WorkerLog
from airflow_remote_worker.status import StatusFile
from airflow_remote_worker.system.systemd import Notifier
from airflow_remote_worker.triggers.conversation import Conversation
from airflow_remote_worker.triggers.hosts import Hosts
from airflow_remote_worker.triggers.keeper import CentralPort, TriggerKeeper
from airflow_remote_worker.triggers.router import Router
from airflow_remote_worker.triggers.spool import TriggerSpool
from airflow_remote_worker.update.keeper import ReleaseKeeper
from airflow_remote_worker.update.releases import Releases
from airflow_remote_worker.update.trial import take_descriptor, wait_for_end

log = logging.getLogger(__name__)

FIRST_SETTINGS_S = 2.0
"""How long the first zygote waits for central's settings: ten times the usual time, and about as long as restarting a zygote."""
SUPERSEDED_TEXT = "central has given this job up, or given it to another worker"
LAST_REPORTS_S = 10.0
"""How long a drained worker waits for its last logs and reports; what is left is on disk for the next start."""


def run(config: Config, arguments: Sequence[str] = ("run",)) -> int:
    """Run the daemon until it ends; return the exit code. A restart executes the program again in the same process.

    *arguments*: the command line without the program. A release that takes over gets the same.
    """
    state, lifecycle, trial = State(config.state, is_shared=config.shares_state), Lifecycle(), take_descriptor(os.environ)
    with state.locked():
        start = Start(arguments, trial)
        code = anyio.run(partial(serve, config, state, lifecycle=lifecycle, start=start), backend="asyncio")
    if lifecycle.restarts and trial is None:
        try:
            # Not a new process: systemd, a container's init and a terminal watch this one.
            os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
        except OSError as error:
            log.error("%s can't be restarted: %s; start the worker by hand", sys.executable, error)
            return EXIT_FAILED
    return code


class Start(NamedTuple):
    """How this daemon was started."""

    arguments: Sequence[str] = ("run",)
    """The command line without the program."""
    trial: int | None = None
    """If this release is on trial: the descriptor that tells when that ends (:mod:`.update.trial`)."""


BY_HAND = Start()


async def serve(
    config: Config, state: State, *, clock: Clock | None = None, lifecycle: Lifecycle | None = None, start: Start = BY_HAND
) -> int:
    """Serve until drained, detached or refused. The caller holds the state directory's lock.

    Raises:
        NotJoined, Damaged, ConfigError: the directory or the settings can't be used.
    """
    membership, worker_log = state.membership(), WorkerLog(state.worker_log)
    with worker_log.attached(), locked_code(config):
        return await _serve(
            Daemon(
                config=config,
                state=state,
                membership=membership,
                lifecycle=lifecycle or Lifecycle(),
                clock=clock or SystemClock(),
                worker_log=worker_log,
                start=start,
            ),
            state,
            start,
        )


async def _serve(daemon: Daemon, state: State, start: Start) -> int:
    log.info("worker %s serves %s with %d slots; state in %s", daemon.name, daemon.link.central, daemon.session.slots, state.root)
    if daemon.network.warning:
        log.warning("%s", daemon.network.warning)
    try:
        async with daemon_signals(daemon.lifecycle), anyio.create_task_group() as tasks:
            await tasks.start(daemon.code.run, name="code")
            await tasks.start(daemon.supervisor.run, name="supervisor")
            await tasks.start(daemon.deliver.run, name="deliver")
            await tasks.start(daemon.ship.run, name="ship")
            await tasks.start(daemon.report.run, name="report")
            await tasks.start(daemon.hosts.run, name="trigger hosts")
            await tasks.start(daemon.triggers.run, name="triggers")
            await tasks.start(daemon.end_triggers.run, name="end triggers")
            daemon.supervisor.adopt()
            daemon.hosts.adopt()
            daemon.triggers.adopt()
            # Only after the adopted jobs are known to the gateway: it stops every shim that connects for an unknown job.
            await tasks.start(daemon.gateway.serve, name="gateway")
            daemon.notifier.notify_ready()
            if start.trial is None:
                tasks.start_soon(daemon.keep_runtimes, name="runtimes")
            else:
                tasks.start_soon(daemon.end_with_trial, start.trial, name="trial")
            tasks.start_soon(daemon.releases.run, name="releases")
            tasks.start_soon(daemon.report_runtime.run, name="report runtime")
            tasks.start_soon(daemon.poll.run, daemon.request, name="poll")
            tasks.start_soon(daemon.rotate.run, name="rotate")
            tasks.start_soon(daemon.inventory.run, name="inventory")
            tasks.start_soon(daemon.ship_worker_log.run, name="ship worker log")
            tasks.start_soon(daemon.ship_triggers.run, name="ship triggers' logs")
            tasks.start_soon(daemon.usage.run, name="usage")
            tasks.start_soon(daemon.drain_when_asked, name="drain")
            if start.trial is None:
                tasks.start_soon(daemon.end.run, name="end")
            tasks.start_soon(daemon.status.run, name="status")
            tasks.start_soon(daemon.logs.run, daemon.process_logs, name="trim logs")
            tasks.start_soon(daemon.disk.watch, daemon.make_room, name="disk")
            await daemon.lifecycle.detaching.wait()
            if not daemon.lifecycle.restarts:
                daemon.notifier.notify_stopping()
            tasks.cancel_scope.cancel()
    finally:
        # Also after a loop failed: everything held is on disk, the shims run on, and the next start adopts them.
        with anyio.CancelScope(shield=True):
            await daemon.end_session()
            await daemon.link.close()
        daemon.gateway.path.unlink(missing_ok=True)
        daemon.status.write(ended=True)
    level = logging.INFO if daemon.lifecycle.exit_code == EXIT_OK else logging.ERROR
    left = f"; {len(running)} jobs run on and are adopted by the next start" if (running := daemon.running()) else ""
    log.log(level, "worker %s ends: %s%s", daemon.name, daemon.lifecycle.reason, left)
    return daemon.lifecycle.exit_code


class Daemon:
    """All parts, connected. Starts nothing by itself."""

    def __init__(
        self,
        *,
        config: Config,
        state: State,
        membership: Membership,
        lifecycle: Lifecycle,
        clock: Clock,
        worker_log: WorkerLog,
        start: Start = BY_HAND,
    ) -> None:
        self.network = Network.of(config, membership)
        self.name = membership.name
        self.lifecycle = lifecycle
        self.notifier = Notifier(os.environ)
        self.link = Link(self.network, credential=membership.credential, previous=membership.previous, clock=clock)
        self.session = WorkerSession(slots=config.slots, triggers=config.triggers, max_jobs=config.max_jobs)
        self.end = EndLoop(self.session, lifecycle, clock, idle_exit_s=config.idle_exit_s)
        self.is_ephemeral = config.ephemeral or membership.ephemeral
        self.spool = Spool(state.jobs, quarantine=state.quarantine)
        self.gateway = LocalGateway(state.socket_path(), self.link, clock)
        access = _LocalAccess(self)
        self.disk = Disk(state.root, config.min_free_mb, clock)
        self.logs = LogKeeper(self.spool, quarantine=state.quarantine, keep=config.keep_logs, clock=clock)
        self.code = BundleCode(
            TreeStore(config.code_path / "trees"),
            PackFetcher(
                Incoming(config.code_path / "incoming"),
                self.link,
                clock,
                kbit_s=config.code.max_kbit_s,
                make_retries=lambda: Attempts(self.link, clock),
            ),
            Limits(total=int(config.code.total_mb * 1_000_000), least_free=int(config.min_free_mb * 1_000_000)),
            clock,
        )
        self.trust = Trust(config, TrustFile(state.root, state.put_aside), state.statements, self.link.fetch_statements, clock)
        self._check_tree: Check = self.trust.check
        self.base, self._own_base = find(config), find_own()
        self.releases = ReleaseKeeper(
            config=config,
            releases=Releases(config, state, self._own_base),
            code=self.code,
            lifecycle=lifecycle,
            clock=clock,
            arguments=start.arguments,
            is_trial=start.trial is not None,
            check=self._check_tree,
            on_proven=self.trust.note_proven,
        )
        self.releases.load()
        self.runtimes = self._make_runtimes(config, state, clock)
        self.task_settings = TaskSettingsKeeper(state.task_settings_path, self.runtimes.use_task_settings)
        self.report_runtime = RuntimeLoop(self.link, clock, self.runtimes.report)
        self.inventory = InventoryLoop(self.link, clock, self._make_inventory)
        site = Site(
            config,
            membership.name,
            self.gateway.path,
            state.contact_path,
            check_room=self.disk.check,
            note_failure=self.disk.note_failure,
            body_bytes=lambda: self.link.body_bytes,
            code=self.code,
            check_code=self.trust.check_code,
            needs_signed_code=lambda: self.trust.requires(Kind.BUNDLE),
            runtimes=self.runtimes if isinstance(self.runtimes, SentRuntimes) else None,
            release=self.releases.running,
        )
        self.supervisor = Supervisor(
            site=site, spool=self.spool, session=self.session, starter=self.runtimes, gateway=access, clock=clock
        )
        self._trigger_spool = TriggerSpool(state.triggers, quarantine=state.quarantine)
        self.hosts = Hosts(state.hosts, site=site, starter=self.runtimes, clock=clock)
        central = CentralPort(accept=self.link.accept, wait=self.link.wait_for_contact)
        self.triggers = TriggerKeeper(
            site=site, spool=self._trigger_spool, session=self.session, hosts=self.hosts, central=central, clock=clock
        )
        self.end_triggers = EndTriggersLoop(self.link, clock, self.triggers.note_delivered)
        self.ship_triggers = ShipTriggersLoop(self.link, clock, self.triggers.flushed)
        self.deliver = DeliverLoop(self.link, clock, self.supervisor.supersede)
        self.ship = ShipLoop(self.link, clock)
        self.ship_worker_log = ShipWorkerLogLoop(self.link, clock, worker_log)
        self.usage = UsageLoop(self.link, clock, meter=Meter(state.root), shims=self._shims)
        self.report = ReportLoop(self.link, clock, self.supervisor.close)
        longest_poll_s = self.notifier.longest_poll_s(config.poll.max_wait_s)
        polls = msgspec.structs.replace(config.poll, max_wait_s=longest_poll_s)
        router = Router(self.supervisor, self.triggers)
        self.poll = PollLoop(link=self.link, session=self.session, keeper=router, lifecycle=lifecycle, clock=clock, config=polls)
        self.rotate = RotateLoop(self.link, clock, lambda new, old: state.replace_credential(new, previous=old))
        self.status = StatusFile(
            state.status_path, describe=self._describe, on_written=lambda: self.notifier.set_status(self._summary()), clock=clock
        )
        self._config = config
        self._capabilities = capabilities(config, self.base.platform, self._own_base.platform)
        self._state = state
        self._clock = clock
        self._boot_id = secrets.token_hex(16)
        self._fewer = anyio.Event()
        self._started_at = clock.wall()
        self._contact_at: float | None = None
        self._clock_off_s = 0.0

        self.supervisor.on_held += [self.deliver.follow, self.ship.follow, self.report.follow]
        self.supervisor.on_held += [
            lambda job: self._store_contact(),
            lambda job: self.status.note_change(),
            lambda job: self.usage.on_job_held(),
            lambda job: self.end.note_change(),
        ]
        self.supervisor.on_freed = self._on_freed
        self.supervisor.on_detail = self.status.note_change
        self.supervisor.on_declined = self.poll.decline
        self.code.on_change = self._on_trees
        self.supervisor.on_closed = self._on_closed
        self._wire_triggers()
        self.runtimes.on_change = self._on_runtimes
        self.report_runtime.on_change = self.status.note_change
        self.session.runtimes_revision = "" if self.base.platform else None
        self.session.release_serial = 0 if self._own_base.platform else None
        self.releases.on_change = self._on_release_change
        if start.trial is not None:
            self.session.draining, self.poll.waits = True, False  # no job depends on a release that isn't proven
        self._note_fitness()
        self.supervisor.on_outcome = self._on_outcome
        self.disk.on_change = self._on_disk
        self.poll.on_session += [self._on_session, self.rotate.on_session]
        self.poll.on_intent += [self.rotate.on_intent, self._on_intent]
        self.link.on_fallback = self.rotate.rotate_now
        self.poll.on_task_settings += [self.task_settings.receive]
        self.poll.on_runtimes += [self.runtimes.receive]
        self.poll.on_release += [self.releases.receive]
        self.poll.on_answer += [self.releases.note_answer]
        self.poll.on_contact += [self._on_contact]
        self.session.note_contact(self._stored_contact())
        self.task_settings.load()
        self.session.task_settings_revision = self.task_settings.revision

    def _make_runtimes(self, config: Config, state: State, clock: Clock) -> SiteRuntime | SentRuntimes:
        def make_launcher(python: Path, env: dict[str, str], zygote_log: Path) -> Launcher:
            scrubbed = scrub_environment(os.environ, python=python, airflow_home=state.airflow_home, extra=env)
            return Launcher(python, env=scrubbed, home=state.airflow_home, zygote_log=zygote_log)

        if config.runtime.python is not None:
            launcher = make_launcher(config.runtime.python, config.runtime.env, state.zygote_log)
            return SiteRuntime(launcher, RuntimeKeeper(launcher, state.canary, clock), state.zygote_log)
        return SentRuntimes(
            code=self.code,
            environments=Environments(config.code_path / "runtimes", self.base),
            make_launcher=make_launcher,
            site_env=config.runtime.env,
            root=state.runtimes,
            clock=clock,
            check=self._check_tree,
            on_proven=self.trust.note_proven,
        )

    def _wire_triggers(self) -> None:
        keeper = self.triggers
        self.gateway.hosts = keeper.conversation = Conversation(
            hosts=self.hosts, keeper=keeper, gateway=self.gateway, clock=self._clock
        )
        self.hosts.on_died = keeper.host_died
        self.hosts.on_change = self.status.note_change
        self.hosts.task_settings = lambda: self.task_settings.mark
        keeper.report_end = self.end_triggers.report_end
        keeper.log_grew, keeper.flush = self.ship_triggers.log_grew, self.ship_triggers.flush
        keeper.on_held = self._on_trigger_held
        keeper.on_freed = self._on_trigger_ended
        keeper.on_change = self._note_fewer

    def request(self) -> SessionRequest:
        """Return the request that opens a session: this worker's identity, its capabilities and its leases."""
        return SessionRequest(
            instance_id=self._state.instance_id(),
            boot_id=self._boot_id,
            protocol=PROTOCOL_VERSION,
            capabilities=sorted(c.value for c in self._capabilities),
            slots=self._config.slots,
            facts=facts(self.base.platform, self._own_base.platform),
            jobs=self.session.held(),
            triggers=self._config.triggers if Capability.TRIGGER in self._capabilities else 0,
            time=self._clock.wall(),
            ephemeral=self.is_ephemeral,
            max_jobs=self._config.max_jobs,
        )

    def running(self) -> list[Job]:
        """Return the jobs that have not ended."""
        return [job for job in self.supervisor.jobs.values() if not job.ended.is_set()]

    def _shims(self) -> dict[str, int]:
        return {job.lease.job_id: job.shim.pid for job in self.running() if job.shim}

    async def keep_runtimes(self) -> None:
        """Prepare and test the runtimes and keep zygotes ready, until cancelled.

        If no settings for tasks are stored yet, wait up to :data:`FIRST_SETTINGS_S` for central's.
        """
        with anyio.move_on_after(FIRST_SETTINGS_S):
            await self.task_settings.known.wait()
        await self.runtimes.run()

    async def end_with_trial(self, descriptor: int) -> None:
        """End this daemon, which is a release on trial, when its time is up."""
        await wait_for_end(descriptor)
        self.lifecycle.detach("the trial of this release has ended before it reached central", exit_code=EXIT_FAILED)

    async def drain_when_asked(self) -> None:
        """Once draining: take no jobs, wait for running ones, give the credential back if the worker leaves, detach."""
        await self.lifecycle.draining.wait()
        if self.lifecycle.phase is Phase.DETACHING:
            return
        log.info("draining (%s): waiting for %d jobs", self.lifecycle.reason, len(self.running()))
        self.session.draining = True
        self.triggers.hand_back_all("this worker is draining")
        self.status.note_change()
        self.poll.refresh()
        with anyio.move_on_after(self._config.drain_timeout_s) as waited:
            await self._until(lambda: not self.running())
        with anyio.move_on_after(LAST_REPORTS_S):
            await self._until(lambda: self.session.is_idle or bool(self.running()))
        if (self.is_ephemeral or self.session.intent.mode is IntentMode.LEAVE) and self.session.is_idle:
            await self._leave()
        how = "drain timeout" if waited.cancelled_caught else "drained"
        self.lifecycle.detach(f"{self.lifecycle.reason}; {how}")

    async def _leave(self) -> None:
        self.lifecycle.is_leaving = True
        try:
            await self.link.leave()
            self._state.forget()
        except WorkerError as error:
            if self.is_ephemeral:
                log.warning("central did not let this worker leave: %s; it removes the worker once it has been silent", error)
            else:
                self.lifecycle.detach(
                    f"central did not let this worker leave: {error}; start it again to retry", exit_code=EXIT_FAILED
                )

    async def end_session(self) -> None:
        """Report a regular end of this daemon to central, if central can be reached. A restart is not an end."""
        ends = self.lifecycle.phase is Phase.DETACHING and self.lifecycle.exit_code == EXIT_OK and not self.lifecycle.restarts
        if not ends or self.lifecycle.is_leaving or self.link.session_id is None:
            return
        with anyio.move_on_after(END_SESSION_S):
            try:
                await self.link.end_session()
            except WorkerError as error:  # an older central has no such call; central notices the missing polls anyway
                log.debug("the end of this worker could not be reported to central: %s", error)

    async def make_room(self, missing: int) -> None:
        """Free *missing* bytes of the state directory's disk: remove the logs of finished jobs, then code that no job uses."""
        await self.logs.free(missing)
        if self._config.code.path is None and (left := self.disk.missing()) > 0:
            await self.code.free(left)

    def process_logs(self) -> list[Path]:
        """Return the logs that this worker's processes are writing."""
        return [*self.runtimes.logs(), *(job.dir.shim_log for job in self.supervisor.jobs.values()), *self.hosts.logs()]

    def _describe(self) -> dict[str, Any]:
        """Return the content of `status.json`, except pid and `ended`."""
        return {
            "phase": self.lifecycle.phase.name.lower(),
            "reason": self.lifecycle.reason,
            "name": self.name,
            "central": self.link.central,
            "version": __version__,
            "started_at": self._started_at,
            "contact_at": self._contact_at,
            "clock_off_s": self._clock_off_s,
            "trouble": self.poll.trouble,
            "warning": self.network.warning,
            "proxy": str(self.link.proxy) if self.link.proxy else None,
            "session": self.link.session_id,
            "intent": {"mode": self.session.intent.mode.value, "reason": self.session.intent.reason},
            "slots": self.session.slots,
            "free_slots": self.session.free_slots(),
            "triggers": {"running": self.triggers.running(), "most": self.session.triggers, "hosts": len(self.hosts.all)},
            **self.runtimes.describe(),
            "release": self.releases.describe(),
            "runtime_trouble": self.runtimes.trouble,
            "runtime_refused": self.report_runtime.refused,
            "disk_trouble": self.disk.trouble,
            "jobs": [
                {"job_id": h.job_id, "epoch": h.epoch, "phase": h.phase.value, "detail": h.detail}
                for h in self.session.held()
                if self.triggers.find(Lease(h.job_id, h.epoch)) is None
            ],
        }

    def _summary(self) -> str:
        phase = self.lifecycle.phase.name.lower()
        trouble = self.poll.trouble or self.runtimes.trouble or self.report_runtime.refused or self.disk.trouble
        return f"{self.name}: {phase}, {len(self.running())} jobs" + (f"; {trouble}" if trouble else "")

    def _on_session(self, session: Session) -> None:
        both = agree(self._capabilities, session.capabilities)
        self.ship.gzip = self.ship_worker_log.gzip = self.ship_triggers.gzip = Capability.GZIP_LOG in both
        self.ship_worker_log.set_wanted(wanted=Capability.WORKER_LOG in both)
        self.usage.set_wanted(wanted=Capability.USAGE in both)
        self.report_runtime.on_session(wanted=Capability.RUNTIME in both)
        self.runtimes.on_session(supported=Capability.RUNTIMES in both)
        self.inventory.on_session(wanted=Capability.BUNDLES in both)
        self.releases.on_session(session.release)
        self._on_intent(session.intent)
        self._clock_off_s = round(self._clock.wall() - session.time, 1) if session.time else 0.0
        log.info("session open with %s as %s", self.link.central, session.name)
        if abs(self._clock_off_s) > CLOCK_DIFFERS_S:
            log.warning(
                "this machine's clock is %s; until then the logs of both sides are hard to compare",
                describe_clock_offset(self._clock_off_s),
            )

    def _on_intent(self, intent: Intent) -> None:
        if intent.restart:
            self.lifecycle.restart("an administrator requested a restart")
        if intent.mode in (IntentMode.DRAIN, IntentMode.LEAVE):
            self.triggers.hand_back_all("an administrator drains this worker")

    def _on_contact(self) -> None:
        if not self.poll.trouble:
            self.notifier.feed_watchdog()
            self._contact_at = self._clock.wall()
            if not self.session.is_idle:
                self._store_contact()
        self.end.note_change()
        self.status.note_change()

    def _on_release_change(self) -> None:
        self.inventory.note_change()
        self.status.note_change()

    def _make_inventory(self) -> Inventory:
        return Inventory(self.code.trees, self.runtimes.held(), self.releases.held(), self.releases.running)

    def _on_trees(self) -> None:
        self.inventory.note_change()
        self.runtimes.tidy()

    def _note_fitness(self) -> None:
        runtimes = self.runtimes
        self.session.unfit, self.session.ready, self.session.on_probation = runtimes.unfit, runtimes.ready, runtimes.on_probation

    def _on_runtimes(self) -> None:
        before = self.session.free_slots(), self.session.free_triggers()
        self._note_fitness()
        if before != (self.session.free_slots(), self.session.free_triggers()):
            self.poll.refresh()
        self.report_runtime.note_change()
        self.inventory.note_change()
        self.end.note_change()
        self.status.note_change()

    def _on_outcome(self, job: Job, report: Report, begun: bool | None) -> None:
        if begun:
            self.runtimes.note_begun(runtime_of(job.offer))
        elif begun is False:
            self.runtimes.note_failure(runtime_of(job.offer), report.reason)

    def _on_disk(self) -> None:
        if not self.disk.trouble and self.session.no_room:
            self.session.no_room = ""
            self.poll.refresh()
        self.status.note_change()

    def _store_contact(self) -> None:
        """Store the last contact for shims, which watch the time without contact even without a daemon, and for the next daemon.

        A job's first contact is in its `job.json` too.
        """
        if self.session.last_contact is not None:
            with contextlib.suppress(OSError):  # trouble of the disk, which `state/free_space.py` reports
                self._state.store_contact(self.session.last_contact)

    def _on_freed(self) -> None:
        self.poll.refresh()
        self._note_fewer()

    def _on_trigger_held(self) -> None:
        self._store_contact()
        self.end.note_change()

    def _on_trigger_ended(self) -> None:
        if self.session.free_triggers() == 1:
            self.poll.refresh()  # the open poll lists no free trigger
        self._note_fewer()

    def _on_closed(self, job: Job) -> None:
        # No new poll: central knows from the report.
        self.logs.note_closed(job.dir)
        self._note_fewer()

    def _note_fewer(self) -> None:
        self._fewer.set()
        self._fewer = anyio.Event()
        self.end.note_change()
        self.status.note_change()

    def _stored_contact(self) -> float:
        """Return an earlier daemon's last contact since this machine started: a restart gives adopted jobs no extra time."""
        now = self._clock.monotonic()
        stored = self._state.contact()
        holds_any = any(job.closed() is None for job in self.spool) or any(True for _ in self._trigger_spool)
        if stored is not None and stored <= now and holds_any:
            return stored
        return now

    async def _until(self, holds: Any) -> None:
        while not holds():
            await self._fewer.wait()


@contextlib.contextmanager
def locked_code(config: Config) -> Iterator[None]:
    """Create the directory for code, and lock it against other workers if it is outside of the state directory.

    Raises:
        ConfigError: another worker uses it.
    """
    path = config.code_path
    if not path.exists():
        path.mkdir(mode=0o755, parents=True)
        path.chmod(0o755)
    fd = None
    if config.code.path is not None:
        fd = system.lock(path / "lock")
        if fd is None:
            raise ConfigError(f"code.path: another worker uses {path}; give each worker a directory of its own")
    try:
        yield
    finally:
        if fd is not None:
            os.close(fd)


class _LocalAccess:
    """Gives jobs access to the gateway, connected to the parts that their calls concern."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon

    def open(self, lease: Lease, key: str, job: Job) -> None:
        daemon = self._daemon
        daemon.gateway.open(
            JobAccess(
                lease,
                key,
                on_accepted=lambda: daemon.session.move(lease, JobPhase.RUNNING),
                on_begun=lambda: daemon.runtimes.note_begun(runtime_of(job.offer)),
                # Don't drop the log: central may still want it, as for a lost job. Central's answer to the log decides.
                on_superseded=lambda: daemon.supervisor.stop(
                    Stop(lease.job_id, lease.epoch, StopReason.SUPERSEDED, SUPERSEDED_TEXT)
                ),
                on_hello=lambda pid: daemon.supervisor.note_shim(job, make_shim_record(pid)),
                outbox=job.outbox,
            )
        )

    def stop(self, lease: Lease, stop: frames.Stop) -> None:
        self._daemon.gateway.stop(lease, stop)

    def close(self, lease: Lease) -> None:
        self._daemon.gateway.close(lease)


@contextlib.asynccontextmanager
async def daemon_signals(lifecycle: Lifecycle) -> Any:
    """Pass SIGTERM and SIGINT to *lifecycle* inside this context."""
    loop = asyncio.get_running_loop()

    def receive(signum: signal.Signals) -> None:
        lifecycle.on_signal(signum.name)

    system.add_signal_handlers(loop, receive)
    try:
        yield
    finally:
        system.remove_signal_handlers(loop)
