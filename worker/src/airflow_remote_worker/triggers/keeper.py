"""The triggers of this worker, from a taken offer to the moment when central knows how they ended.

Decides, stores, and says what is to happen; who does it are the hosts (:mod:`.hosts`, :mod:`.conversation`) and two loops:
`loops/end_triggers.py` tells central how triggers ended, `loops/ship_triggers.py` ships their logs. A trigger that waits costs no
task here: one runs while it starts, one while its end is told.
"""

from __future__ import annotations

import contextlib
import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

import anyio
import anyio.abc
from airflow_remote_protocol.codec import Malformed, decode
from airflow_remote_protocol.messages import (
    LONGEST_SHORT_TEXT,
    Decline,
    EventKind,
    JobPhase,
    Offer,
    Outcome,
    Report,
    Stop,
    StopReason,
    TriggerEvent,
    TriggerWorkload,
)

from airflow_remote_worker.clock import Backoff, Clock
from airflow_remote_worker.errors import Damaged, Outdated, Refused, Rewind, Superseded, Unreachable
from airflow_remote_worker.jobs.logs import as_line
from airflow_remote_worker.jobs.preparation import Unprepared, locate_code
from airflow_remote_worker.jobs.process import CannotHost
from airflow_remote_worker.jobs.site import Site
from airflow_remote_worker.lease import Lease
from airflow_remote_worker.local import frames
from airflow_remote_worker.session import WorkerSession
from airflow_remote_worker.state.free_space import NoRoom
from airflow_remote_worker.triggers.host import HostedCode, TriggerHost
from airflow_remote_worker.triggers.hosts import TooManyHosts
from airflow_remote_worker.triggers.log import WaitingLog
from airflow_remote_worker.triggers.spool import TriggerDir, TriggerSpool
from airflow_remote_worker.triggers.trigger import Stage, Trigger

log = logging.getLogger(__name__)

USER_ACTED = frozenset({StopReason.ENDED, StopReason.CLEARED, StopReason.GONE})
"""Stops with which a trigger's `on_kill` runs (docs/protocol.md)."""
HOST_DIED = "host-died: "
"""What the reason of a hand-back begins with if the host ended unexpectedly. Central counts these for each trigger."""
ACCEPTS_AT_ONCE = 16
"""Of 500 offers in one reply, each must be accepted within its deadline of 30 s; one accept takes some 5 ms."""
LOOKS_AT_ONCE = 8
"""For the code of one bundle; each takes a thread, and none comes back while a network drive is away."""
MOST_EVENT = 2 * 1024 * 1024
"""Bytes; the host itself takes no more than 1 MiB (`shim/triggers/encoding.py`)."""
ADOPTED_WITHIN_S = 10.0
"""A host connects again within two seconds (`shim/triggers/channel.py`)."""
LOOK_EVERY_S = 5.0


class HostsPort(Protocol):
    """What the keeper needs of the hosts."""

    async def reserve(self, trigger: Trigger, code: HostedCode) -> TriggerHost: ...

    def release(self, trigger: Trigger) -> None: ...

    def claim(self, trigger: Trigger, host: TriggerHost) -> None: ...

    async def until_settled(self, within_s: float) -> None: ...


class HostsVoice(Protocol):
    """What the keeper says to hosts."""

    def start(self, trigger: Trigger) -> None: ...

    def cancel(self, trigger: Trigger) -> None: ...

    def acknowledge(self, trigger: Trigger) -> None: ...


@dataclass(frozen=True)
class CentralPort:
    """What the keeper asks of central itself; the rest goes through the loops."""

    accept: Callable[[Lease], Awaitable[None]]
    wait: Callable[[float], Awaitable[None]]
    """Wait so many seconds, or until central is back."""


class TriggerKeeper:
    """Keeps the triggers. *voice*, the loops and the listeners are wired by the daemon."""

    voice: HostsVoice

    def __init__(
        self, site: Site, spool: TriggerSpool, session: WorkerSession, hosts: HostsPort, central: CentralPort, clock: Clock
    ) -> None:
        self.triggers: dict[Lease, Trigger] = {}
        self.tell: Callable[[Trigger], None] = _ignore
        """Tell central the trigger's ending; then call :meth:`told`."""
        self.log_grew: Callable[[Trigger], None] = _ignore
        self.flush: Callable[[Trigger], None] = _ignore
        """Ship the rest of its log; then call :meth:`flushed`."""
        self.on_held: Callable[[], None] = _nobody
        self.on_freed: Callable[[], None] = _nobody
        """Called when one has ended: there is room for another one."""
        self.on_change: Callable[[], None] = _nobody
        self._site = site
        self._spool = spool
        self._session = session
        self._hosts = hosts
        self._central = central
        self._clock = clock
        self._accepting = anyio.CapacityLimiter(ACCEPTS_AT_ONCE)
        self._looking: dict[str, anyio.CapacityLimiter] = {}
        self._tasks: anyio.abc.TaskGroup | None = None

    async def run(self, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Be the parent of starting triggers, and count `stop_after` for all, until cancelled."""
        async with anyio.create_task_group() as self._tasks:
            task_status.started()
            while True:
                await self._clock.sleep(LOOK_EVERY_S)
                self._stop_without_contact()

    def find(self, lease: Lease) -> Trigger | None:
        return self.triggers.get(lease)

    def running(self) -> int:
        """Return how many have not ended."""
        return sum(trigger.stage is not Stage.ENDED for trigger in self.triggers.values())

    # What central says

    def take(self, offer: Offer) -> None:
        """Store *offer* and start on it.

        Raises:
            OSError, ValueError: it can't be stored; nothing has been started, decline it.
        """
        lease = Lease(offer.job_id, offer.epoch)
        stored = self._spool.of(lease)
        try:
            self._site.check_room()
            stored.store_offer(offer)
        except OSError as error:
            self._site.note_failure(error)
            self._session.no_room = str(error) if isinstance(error, NoRoom) else ""
            raise
        trigger = self._hold(stored, offer, JobPhase.PREPARING)
        self._begin(trigger)

    def stop(self, stop: Stop) -> None:
        """End the trigger, before it starts or in its host."""
        trigger = self.triggers.get(Lease(stop.job_id, stop.epoch))
        if trigger is None or trigger.stop is not None or trigger.stage is Stage.ENDED:
            return
        log.info("trigger %s: stopping (%s) %s", trigger.lease, stop.reason.value, stop.detail)
        trigger.stop = stop
        self._session.move(trigger.lease, JobPhase.STOPPING)
        self._cancel(trigger, on_kill=stop.reason in USER_ACTED)

    def supersede(self, lease: Lease, detail: str = "central has given this trigger to another lease") -> None:
        """The trigger is not ours any more: end it if it runs, and drop what central has not been told."""
        trigger = self.triggers.get(lease)
        if trigger is None:
            return
        if trigger.stage is Stage.ENDED:
            trigger.ending = None  # whether its log is wanted, the log's route says
        else:
            self.stop(Stop(job_id=lease.job_id, epoch=lease.epoch, reason=StopReason.SUPERSEDED, detail=detail))

    def hand_back_all(self, reason: str) -> None:
        """Give every running trigger back to the queue; one whose event is known is delivered instead."""
        for trigger in list(self.triggers.values()):
            if trigger.stage is not Stage.ENDED and not trigger.stop and not trigger.hand_back:
                trigger.hand_back = reason
                self._session.move(trigger.lease, JobPhase.STOPPING)
                self._cancel(trigger, on_kill=False)

    # What hosts say

    def meet(self, trigger: Trigger, host: TriggerHost) -> bool:
        """A host that has connected names this trigger; return whether it is to keep it."""
        if trigger.host is None and trigger.stage in (Stage.ADOPTED, Stage.CANCELLING):
            self._hosts.claim(trigger, host)
            if trigger.stage is Stage.ADOPTED:
                trigger.stage = Stage.HOSTED
                self._session.move(trigger.lease, JobPhase.RUNNING)
        return trigger.host is host and (trigger.stage is not Stage.ENDED or not trigger.is_stored)

    def order(self, trigger: Trigger) -> frames.StartTrigger | None:
        """Return the order to start it; None if what we stored of it can't be read, and it goes back to the queue."""
        try:
            offer = trigger.dir.offer()
        except Damaged as error:
            log.error("trigger %s: %s; it goes back to the queue", trigger.lease, error)
            self._conclude(trigger, Decline(reason=f"the worker's notes about it are damaged: {error}"[:LONGEST_SHORT_TEXT]))
            return None
        last = self._session.last_contact
        contact_at = self._clock.monotonic() if last is None else last
        return frames.StartTrigger(trigger.lease, bytes(offer.workload), offer.stop_after_s, contact_at)

    def take_event(self, lease: Lease, event: bytes) -> bool:
        """The trigger has fired; return whether its host may forget that: it is stored, or nobody wants it."""
        trigger = self.triggers.get(lease)
        if trigger is None or trigger.stage not in (Stage.HOSTED, Stage.CANCELLING):
            return trigger is None or trigger.is_stored
        if trigger.stop is not None:
            self.take_cancelled(lease)  # the stop came first: nobody waits for the event
            return True
        fired = _decoded(event)
        try:
            trigger.dir.store_event(fired)
        except OSError as error:
            # Its host keeps it, and says it to the next daemon, should this one end before central has it.
            self._site.note_failure(error)
            log.error("trigger %s: its event can't be stored (%s); it is sent all the same", lease, error)
            trigger.is_stored = False
        log.debug("trigger %s: %s", lease, fired.kind.value)
        self._end(trigger)
        trigger.ending, trigger.has_fired = fired, True
        self.tell(trigger)
        if trigger.is_stored:
            self._hosts.release(trigger)
        return trigger.is_stored

    def take_cancelled(self, lease: Lease) -> None:
        """The trigger has ended without an event, because it was cancelled."""
        trigger = self.triggers.get(lease)
        if trigger is None or trigger.stage not in (Stage.HOSTED, Stage.CANCELLING):
            return
        self._hosts.release(trigger)
        if trigger.stop is None and not trigger.hand_back:
            # Its host has ended it for want of contact, or a daemon before us wanted that.
            log.info("trigger %s: was cancelled although it is held; starting it again", lease)
            trigger.stage = Stage.STARTING
            self._begin(trigger)
            return
        self._conclude(trigger, None)

    def take_lines(self, lease: Lease, text: bytes) -> None:
        """Keep what the trigger has logged, until central takes it."""
        if trigger := self.triggers.get(lease):
            gap = b""
            if trigger.log.lost:
                gap = as_line(
                    f"{trigger.log.lost} lines of this log were lost here: central was away for too long", self._clock.wall()
                )
            try:
                trigger.log.append(text, gap=gap)
            except OSError as error:
                self._site.note_failure(error)
                trigger.log.lost += text.count(b"\n")
            self.log_grew(trigger)

    def host_died(self, host: TriggerHost, triggers: list[Trigger], how: str) -> None:
        """A host has ended with these triggers: they go back to the queue. Central bounds how often."""
        for trigger in triggers:
            if trigger.stage is Stage.CANCELLING:
                self._conclude(trigger, None)
            elif trigger.stage is Stage.HOSTED:
                reason = f"the trigger host ended: {how}"
                self._explain(trigger, f"{reason}; the trigger starts again")
                self._conclude(trigger, Decline(reason=f"{HOST_DIED}{reason}"[:LONGEST_SHORT_TEXT]))
            elif trigger.stage is Stage.ENDED and not trigger.is_stored:
                trigger.is_stored = True  # nobody else has it now; it is in memory

    # What the loops say

    def told(self, trigger: Trigger) -> None:
        """Central knows the trigger's ending, or does not want it."""
        trigger.ending = None
        if not trigger.is_stored:
            self.voice.acknowledge(trigger)
            trigger.is_stored = True
            self._hosts.release(trigger)
        if trigger.has_fired or trigger.log.size:
            self.flush(trigger)  # also for what its code logs after the event
        else:
            self._close(trigger)

    def flushed(self, trigger: Trigger) -> None:
        """Central has all of the trigger's log, or takes no more."""
        if trigger.ending is not None:
            self.tell(trigger)  # the log of a lease that is over is taken, the log of one that is in the queue is not: log first
        else:
            self._close(trigger)

    # Starting

    def _begin(self, trigger: Trigger) -> None:
        assert self._tasks is not None, "the keeper is not running"
        self._tasks.start_soon(self._start, trigger, name=f"start of trigger {trigger.lease}")

    async def _start(self, trigger: Trigger) -> None:
        with anyio.CancelScope() as trigger.starting:
            try:
                offer = trigger.dir.offer()
                await self._reserve(trigger, offer)
                await self._accept(trigger)
            except (Unprepared, CannotHost, OSError, TimeoutError) as error:
                if isinstance(error, OSError):
                    self._site.note_failure(error)
                self._fail_to_start(trigger, str(error) or "the disk with its bundle does not answer")
            except TooManyHosts as error:
                self._conclude(trigger, Decline(reason=str(error)[:LONGEST_SHORT_TEXT]))
            except Damaged as error:
                self._conclude(trigger, Decline(reason=f"the worker's notes about it are damaged: {error}"[:LONGEST_SHORT_TEXT]))
            except Superseded as error:
                log.info("trigger %s: not started: %s", trigger.lease, error)
                trigger.hand_back = ""
                self._conclude(trigger, None)
        was_cancelled, trigger.starting = trigger.starting.cancelled_caught, None
        if trigger.stage is Stage.ENDED:
            return
        if was_cancelled:
            self._conclude(trigger, None)
        elif trigger.host is None:
            self._conclude(trigger, Decline(reason=f"{HOST_DIED}the trigger host ended before the trigger began"))
        else:
            trigger.stage = Stage.HOSTED
            self._session.move(trigger.lease, JobPhase.RUNNING)
            self.voice.start(trigger)
            self.on_change()

    async def _reserve(self, trigger: Trigger, offer: Offer) -> None:
        workload = _workload(offer)
        async with self._looking.setdefault(workload.bundle.name, anyio.CapacityLimiter(LOOKS_AT_ONCE)):
            path = (await locate_code(offer, self._site)).path
        await self._hosts.reserve(trigger, HostedCode(workload.bundle.name, path, self._site.config.user_of(offer.queue)))

    async def _accept(self, trigger: Trigger) -> None:
        """Accept the offer at central, however long that is away. Raises: Superseded."""
        backoff = Backoff(self._clock, floor_s=0.2, ceiling_s=30)
        while True:
            try:
                async with self._accepting:
                    await self._central.accept(trigger.lease)
                return
            except Unreachable as error:
                await self._central.wait(backoff.next_s(error.retry_after_s))
            except Refused as error:
                if error.concerns_one_request:
                    raise Superseded(str(error)) from None
                await self._central.wait(backoff.next_s())  # the worker as a whole is refused: the poll loop ends the daemon
            except (Outdated, Rewind):
                await self._central.wait(backoff.next_s())

    def _fail_to_start(self, trigger: Trigger, reason: str) -> None:
        log.error("trigger %s: not started: %s", trigger.lease, reason)
        self._explain(trigger, reason)
        self._conclude(trigger, Report(outcome=Outcome.UNPREPARED, reason=reason[:LONGEST_SHORT_TEXT]))

    # Ending

    def _cancel(self, trigger: Trigger, *, on_kill: bool) -> None:
        trigger.runs_on_kill = on_kill
        if trigger.stage is Stage.HOSTED:
            trigger.stage = Stage.CANCELLING
            self.voice.cancel(trigger)
        elif trigger.stage is Stage.ADOPTED:
            # Its host may run it and come in a moment; if none does, nothing has to be cancelled.
            trigger.stage = Stage.CANCELLING
        elif trigger.starting is not None:
            trigger.starting.cancel()

    def _conclude(self, trigger: Trigger, ending: Decline | Report | None) -> None:
        """Nothing of the trigger runs: tell central *ending*, or the hand-back that it was cancelled for, after its log."""
        if ending is None and trigger.hand_back and not trigger.stop:
            ending = Decline(reason=trigger.hand_back[:LONGEST_SHORT_TEXT])
        self._end(trigger)
        self._hosts.release(trigger)
        trigger.ending = None if trigger.stop and isinstance(ending, Decline) else ending
        self.flush(trigger)

    def _end(self, trigger: Trigger) -> None:
        trigger.stage = Stage.ENDED
        self._session.move(trigger.lease, JobPhase.ENDED)
        self.on_freed()

    def _close(self, trigger: Trigger) -> None:
        self._hosts.release(trigger)
        trigger.dir.remove()
        self._session.release(trigger.lease)
        self.triggers.pop(trigger.lease, None)
        self.on_change()

    def _explain(self, trigger: Trigger, reason: str) -> None:
        self.take_lines(trigger.lease, as_line(reason, self._clock.wall()))

    def _stop_without_contact(self) -> None:
        """Two copies must not run for long: stop before central gives the trigger to another worker."""
        now = self._clock.monotonic()
        for trigger in list(self.triggers.values()):
            if trigger.stage is Stage.ENDED or trigger.stop is not None:
                continue
            left_s = self._session.left_s(trigger.lease, now)
            if left_s is not None and left_s <= 0:
                detail = f"no contact with central for {trigger.stop_after_s:.0f} s; it counts this trigger as lost by now"
                lease = trigger.lease
                self.stop(Stop(job_id=lease.job_id, epoch=lease.epoch, reason=StopReason.SUPERSEDED, detail=detail))

    # After a restart

    def adopt(self) -> None:
        """Take up again what an earlier daemon left. Before a session is opened, after the hosts were adopted."""
        for stored in self._spool:
            try:
                self._adopt(stored)
            except (Damaged, OSError) as error:
                where = self._spool.put_aside(stored)
                log.error("trigger %s: %s; central queues it again; moved to %s", stored.lease, error, where)
        if any(trigger.stage is Stage.ADOPTED for trigger in self.triggers.values()):
            assert self._tasks is not None, "the keeper is not running"
            self._tasks.start_soon(self._settle, name="adoption of triggers")

    def _adopt(self, stored: TriggerDir) -> None:
        offer = stored.offer()
        event = stored.event()
        # Whether central has heard the acceptance is not noted. Listed as preparing, an offer is kept, and a running one as well.
        trigger = self._hold(stored, offer, JobPhase.ENDED if event else JobPhase.PREPARING)
        trigger.log.find()
        if event:
            trigger.stage, trigger.ending, trigger.has_fired = Stage.ENDED, event, True
            self.tell(trigger)
        else:
            trigger.stage = Stage.ADOPTED

    async def _settle(self) -> None:
        """Start again what none of the adopted hosts runs."""
        await self._hosts.until_settled(ADOPTED_WITHIN_S)
        for trigger in list(self.triggers.values()):
            if trigger.host is not None:
                continue
            if trigger.stage is Stage.ADOPTED:
                trigger.stage = Stage.STARTING
                self._begin(trigger)
            elif trigger.stage is Stage.CANCELLING:
                self._conclude(trigger, None)

    def _hold(self, stored: TriggerDir, offer: Offer, phase: JobPhase) -> Trigger:
        lease = stored.lease
        if not self._session.holds(lease):
            self._session.hold(offer, phase)
        trigger = Trigger(lease, stored, WaitingLog(stored.path), offer.queue, offer.stop_after_s)
        self.triggers[lease] = trigger
        self.on_held()
        return trigger

    def stages(self) -> Counter[Stage]:
        """Return how many triggers are in which stage."""
        return Counter(trigger.stage for trigger in self.triggers.values())


def _workload(offer: Offer) -> TriggerWorkload:
    try:
        return decode(TriggerWorkload, bytes(offer.workload))
    except Malformed as error:
        raise Unprepared(f"central sent a workload that this worker can't read ({error}); update the older of the two") from None


def _decoded(event: bytes) -> TriggerEvent:
    """Return the event; one that is none becomes a failure that says so: the task must not wait for ever."""
    with contextlib.suppress(Malformed):
        if len(event) <= MOST_EVENT:
            return decode(TriggerEvent, event)
    reason = "the trigger host sent an event that the protocol does not allow; the runtime and the worker may not match"
    return TriggerEvent(kind=EventKind.FAILED, traceback=[reason])


def _ignore(trigger: Trigger) -> None:
    """The default listener."""


def _nobody() -> None:
    """The default listener."""
