"""Keeps the triggers of this worker, from a taken offer until central has acknowledged how they ended.

Decides and stores. The hosts (:mod:`.hosts`, :mod:`.conversation`) run the triggers, `loops/end_triggers.py` reports how they
ended, and `loops/ship_triggers.py` ships their logs. A waiting trigger has no asyncio task here: there is one while it starts and
one while its end is reported.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import anyio
import anyio.abc
from airflow_remote_protocol.codec import Malformed, decode
from airflow_remote_protocol.messages import (
    MAX_SHORT_TEXT,
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
from airflow_remote_worker.jobs.logs import format_line
from airflow_remote_worker.jobs.preparation import Declined, Unprepared, ensure_runtime, locate_code
from airflow_remote_worker.jobs.process import CannotHost
from airflow_remote_worker.jobs.site import Site
from airflow_remote_worker.lease import Lease, runtime_of
from airflow_remote_worker.local import frames
from airflow_remote_worker.session import WorkerSession
from airflow_remote_worker.state.free_space import NoRoom
from airflow_remote_worker.triggers.host import HostedCode, TriggerHost
from airflow_remote_worker.triggers.hosts import TooManyHosts
from airflow_remote_worker.triggers.log import PendingLog
from airflow_remote_worker.triggers.spool import TriggerDir, TriggerSpool
from airflow_remote_worker.triggers.trigger import Stage, Trigger

log = logging.getLogger(__name__)

USER_ACTED = frozenset({StopReason.ENDED, StopReason.CLEARED, StopReason.GONE})
"""Stops with which a trigger's `on_kill` runs (docs/protocol.md)."""
HOST_DIED = "host-died: "
"""The prefix of the reason of a hand-back if the host ended unexpectedly. Central counts these for each trigger."""
ACCEPTS_AT_ONCE = 16
"""Of 500 offers in one reply, each must be accepted within its deadline of 30 s; one accept takes about 5 ms."""
LOOKS_AT_ONCE = 8
"""Lookups of the code of one bundle; each takes a thread, which does not return while a network drive is unreachable."""
MOST_EVENT = 2 * 1024 * 1024
"""Bytes; the host itself accepts 1 MiB at most (`shim/triggers/encoding.py`)."""
LOG_WITHIN_S = 60.0
"""How long the log of an ended trigger may stay open. Its host gives code after the event 10 s and `cleanup` 30 s
(`shim/triggers/running.py`), but can't end code that ignores its cancellation."""
ADOPTED_WITHIN_S = 10.0
"""A host reconnects within two seconds (`shim/triggers/channel.py`)."""
LOOK_EVERY_S = 5.0


class HostsPort(Protocol):
    """The part of :class:`~.hosts.Hosts` that the keeper uses."""

    async def reserve(self, trigger: Trigger, code: HostedCode) -> TriggerHost: ...

    def release(self, trigger: Trigger) -> None: ...

    def claim(self, trigger: Trigger, host: TriggerHost) -> None: ...

    async def wait_until_settled(self, within_s: float) -> None: ...


class ConversationPort(Protocol):
    """The orders that the keeper sends to hosts. Implemented by :class:`~.conversation.Conversation`."""

    def start(self, trigger: Trigger) -> None: ...

    def cancel(self, trigger: Trigger) -> None: ...

    def acknowledge(self, trigger: Trigger) -> None: ...


@dataclass(frozen=True)
class CentralPort:
    """The keeper's own calls to central; the loops make the others."""

    accept: Callable[[Lease], Awaitable[None]]
    wait: Callable[[float], Awaitable[None]]
    """Wait so many seconds, or until central can be reached again."""


class TriggerKeeper:
    """Keeps the triggers. The daemon sets *conversation*, the loops and the listeners."""

    conversation: ConversationPort

    def __init__(
        self, *, site: Site, spool: TriggerSpool, session: WorkerSession, hosts: HostsPort, central: CentralPort, clock: Clock
    ) -> None:
        self.triggers: dict[Lease, Trigger] = {}
        self.report_end: Callable[[Trigger], None] = _ignore
        """Reports the trigger's ending to central; then calls :meth:`note_delivered`."""
        self.log_grew: Callable[[Trigger], None] = _ignore
        self.flush: Callable[[Trigger], None] = _ignore
        """Ships the rest of its log; then calls :meth:`flushed`."""
        self.on_held: Callable[[], None] = _do_nothing
        self.on_freed: Callable[[], None] = _do_nothing
        """Called when a trigger has ended and there is room for another one."""
        self.on_change: Callable[[], None] = _do_nothing
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
        """Run the tasks of starting triggers, and enforce `stop_after` for all triggers, until cancelled."""
        async with anyio.create_task_group() as self._tasks:
            task_status.started()
            while True:
                await self._clock.sleep(LOOK_EVERY_S)
                self._stop_without_contact()
                self._complete_overdue_logs()

    def find(self, lease: Lease) -> Trigger | None:
        return self.triggers.get(lease)

    def running(self) -> int:
        """Return how many have not ended."""
        return sum(trigger.stage is not Stage.ENDED for trigger in self.triggers.values())

    # Called by the poll loop

    def take(self, offer: Offer) -> None:
        """Store *offer* and begin the trigger.

        Raises:
            OSError, ValueError: it can't be stored; nothing has been started, and the caller must decline it.
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
        """Stop the trigger, before it starts or in its host."""
        trigger = self.triggers.get(Lease(stop.job_id, stop.epoch))
        if trigger is None or trigger.stop is not None or trigger.stage is Stage.ENDED:
            return
        log.info("trigger %s: stopping (%s) %s", trigger.lease, stop.reason.value, stop.detail)
        trigger.stop = stop
        self._session.move(trigger.lease, JobPhase.STOPPING)
        self._cancel(trigger, on_kill=stop.reason in USER_ACTED)

    def supersede(self, lease: Lease, detail: str = "central has given this trigger to another lease") -> None:
        """Give up a trigger whose lease is no longer ours: end it if it runs, and drop its ending."""
        trigger = self.triggers.get(lease)
        if trigger is None:
            return
        if trigger.stage is Stage.ENDED:
            trigger.ending = None  # central's log route decides whether the log is still accepted
        else:
            self.stop(Stop(job_id=lease.job_id, epoch=lease.epoch, reason=StopReason.SUPERSEDED, detail=detail))

    def hand_back_all(self, reason: str) -> None:
        """Return every running trigger to the queue. A trigger that has fired is delivered instead."""
        for trigger in list(self.triggers.values()):
            if trigger.stage is not Stage.ENDED and not trigger.stop and not trigger.hand_back:
                trigger.hand_back = reason
                self._session.move(trigger.lease, JobPhase.STOPPING)
                self._cancel(trigger, on_kill=False)

    # Called for hosts

    def claim(self, trigger: Trigger, host: TriggerHost) -> bool:
        """Assign a trigger to the host that has connected and runs it; return whether the host must keep it."""
        if trigger.host is None and trigger.stage in (Stage.ADOPTED, Stage.CANCELLING):
            self._hosts.claim(trigger, host)
            trigger.log_is_open = host.completes_logs
            if trigger.stage is Stage.ADOPTED:
                trigger.stage = Stage.HOSTED
                self._session.move(trigger.lease, JobPhase.RUNNING)
        return trigger.host is host and (trigger.stage is not Stage.ENDED or not trigger.is_stored)

    def order(self, trigger: Trigger) -> frames.StartTrigger | None:
        """Return the order to start the trigger; None if its notes can't be read, upon which it returns to the queue."""
        try:
            offer = trigger.dir.offer()
        except Damaged as error:
            log.error("trigger %s: %s; it returns to the queue", trigger.lease, error)
            self._conclude(trigger, Decline(reason=f"the worker's notes about it are damaged: {error}"[:MAX_SHORT_TEXT]))
            return None
        trigger.log_is_open = trigger.host is not None and trigger.host.completes_logs
        last = self._session.last_contact
        contact_at = self._clock.monotonic() if last is None else last
        return frames.StartTrigger(trigger.lease, bytes(offer.workload), offer.stop_after_s, contact_at)

    def take_event(self, lease: Lease, event: bytes) -> bool:
        """Store the event of a trigger; return whether its host may forget it, because it is stored or not needed."""
        trigger = self.triggers.get(lease)
        if trigger is None or trigger.stage not in (Stage.HOSTED, Stage.CANCELLING):
            return trigger is None or trigger.is_stored
        if trigger.stop is not None:
            self.take_cancelled(lease)  # the stop came first: the event is not needed
            return True
        fired = _decoded(event)
        try:
            trigger.dir.store_event(fired)
        except OSError as error:
            # Its host keeps the event and sends it to the next daemon, if this one ends before central has it.
            self._site.note_failure(error)
            log.error("trigger %s: its event can't be stored (%s); it is sent from memory", lease, error)
            trigger.is_stored = False
        log.debug("trigger %s: %s", lease, fired.kind.value)
        self._end(trigger)
        trigger.ending, trigger.has_fired = fired, True
        self.report_end(trigger)
        if trigger.is_stored:
            self._hosts.release(trigger)
        return trigger.is_stored

    def take_cancelled(self, lease: Lease) -> None:
        """Note that a trigger was cancelled and has ended without an event."""
        trigger = self.triggers.get(lease)
        if trigger is None or trigger.stage not in (Stage.HOSTED, Stage.CANCELLING):
            return
        self._hosts.release(trigger)
        if trigger.stop is None and not trigger.hand_back:
            # Its host has ended it because it had no contact, or an earlier daemon ordered that.
            log.info("trigger %s: it was cancelled, but the worker still holds it; starting it again", lease)
            trigger.stage = Stage.STARTING
            self._begin(trigger)
            return
        self._conclude(trigger, None)

    def take_lines(self, lease: Lease, text: bytes) -> None:
        """Keep log lines of the trigger until central has them."""
        if trigger := self.triggers.get(lease):
            gap = b""
            if trigger.log.lost:
                gap = format_line(
                    f"{trigger.log.lost} lines of this log were lost here: central was away for too long",
                    self._clock.wall(),
                )
            try:
                trigger.log.append(text, gap=gap)
            except OSError as error:
                self._site.note_failure(error)
                trigger.log.lost += text.count(b"\n")
            self.log_grew(trigger)

    def complete_log(self, trigger: Trigger) -> None:
        """Note that no more lines of the trigger will arrive."""
        if trigger.log_is_open:
            trigger.log_is_open = False
            self.log_grew(trigger)  # the loop that ships it may have been waiting for this only

    def reconcile_logs(self, host: TriggerHost, open_logs: Collection[Lease]) -> None:
        """Complete the logs of the host's triggers, except *open_logs*, of which it has more lines."""
        for trigger in list(self.triggers.values()):
            if trigger.lease in open_logs:
                if trigger.stage is Stage.ENDED and not trigger.host_id:
                    trigger.host_id = host.spec.host_id  # an earlier daemon has stored its event
            elif trigger.host_id == host.spec.host_id:
                self.complete_log(trigger)

    def host_died(self, host: TriggerHost, triggers: list[Trigger], how: str) -> None:
        """Return the triggers of a host that has ended to the queue. Central limits how often that happens."""
        self.reconcile_logs(host, ())
        for trigger in triggers:
            if trigger.stage is Stage.CANCELLING:
                self._conclude(trigger, None)
            elif trigger.stage is Stage.HOSTED:
                reason = f"the trigger host ended: {how}"
                self._explain(trigger, f"{reason}; the trigger starts again")
                self._conclude(trigger, Decline(reason=f"{HOST_DIED}{reason}"[:MAX_SHORT_TEXT]))
            elif trigger.stage is Stage.ENDED and not trigger.is_stored:
                trigger.is_stored = True  # the host had the other copy of the event; it is only in memory now

    # Called by the loops that report and ship

    def note_delivered(self, trigger: Trigger) -> None:
        """Note that central has acknowledged the trigger's ending, or does not accept it."""
        trigger.ending = None
        if not trigger.is_stored:
            self.conversation.acknowledge(trigger)
            trigger.is_stored = True
            self._hosts.release(trigger)
        if trigger.has_fired or trigger.log.size:
            self.flush(trigger)  # also for lines that its code logs after the event
        else:
            self._close(trigger)

    def flushed(self, trigger: Trigger) -> None:
        """Note that central has all of the trigger's log, or accepts no more of it."""
        if trigger.ending is not None:
            self.report_end(trigger)  # log first: central accepts the log of an ended lease, but not of a queued trigger
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
            except Declined as error:
                log.warning("trigger %s: declined: %s", trigger.lease, error)
                self._conclude(trigger, Decline(reason=str(error)[:MAX_SHORT_TEXT]))
            except (Unprepared, CannotHost, OSError, TimeoutError) as error:
                if isinstance(error, OSError):
                    self._site.note_failure(error)
                self._fail_to_start(trigger, str(error) or "the disk with its bundle does not answer")
            except TooManyHosts as error:
                self._conclude(trigger, Decline(reason=str(error)[:MAX_SHORT_TEXT]))
            except Damaged as error:
                self._conclude(trigger, Decline(reason=f"the worker's notes about it are damaged: {error}"[:MAX_SHORT_TEXT]))
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
            self.conversation.start(trigger)
            self.on_change()

    async def _reserve(self, trigger: Trigger, offer: Offer) -> None:
        workload = _workload(offer)
        async with self._looking.setdefault(workload.bundle.name, anyio.CapacityLimiter(LOOKS_AT_ONCE)):
            code = await locate_code(offer, self._site, note=partial(self._note_detail, trigger))
            await ensure_runtime(offer, self._site, note=partial(self._note_detail, trigger))
        user = self._site.config.user_of(offer.queue)
        await self._hosts.reserve(trigger, HostedCode(workload.bundle.name, code.path, user, code.tree, runtime_of(offer)))

    def _note_detail(self, trigger: Trigger, detail: str) -> None:
        self._session.set_detail(trigger.lease, detail)

    async def _accept(self, trigger: Trigger) -> None:
        """Accept the offer at central, however long central is unreachable. Raises: Superseded."""
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
                await self._central.wait(backoff.next_s())  # the whole worker is refused: the poll loop ends the daemon
            except (Outdated, Rewind):
                await self._central.wait(backoff.next_s())

    def _fail_to_start(self, trigger: Trigger, reason: str) -> None:
        log.error("trigger %s: not started: %s", trigger.lease, reason)
        self._explain(trigger, reason)
        self._conclude(trigger, Report(outcome=Outcome.UNPREPARED, reason=reason[:MAX_SHORT_TEXT]))

    # Ending

    def _cancel(self, trigger: Trigger, *, on_kill: bool) -> None:
        trigger.runs_on_kill = on_kill
        if trigger.stage is Stage.HOSTED:
            trigger.stage = Stage.CANCELLING
            self.conversation.cancel(trigger)
        elif trigger.stage is Stage.ADOPTED:
            # A host that runs it may connect soon; if no host does, there is nothing to cancel.
            trigger.stage = Stage.CANCELLING
        elif trigger.starting is not None:
            trigger.starting.cancel()

    def _conclude(self, trigger: Trigger, ending: Decline | Report | None) -> None:
        """Report *ending* of a trigger that does not run, or the hand-back that it was cancelled for, after its log."""
        if ending is None and trigger.hand_back and not trigger.stop:
            ending = Decline(reason=trigger.hand_back[:MAX_SHORT_TEXT])
        if isinstance(ending, Decline):
            self._session.note_declined(trigger.lease)
        self._end(trigger)
        self._hosts.release(trigger)
        trigger.ending = None if trigger.stop and isinstance(ending, Decline) else ending
        self.flush(trigger)

    def _end(self, trigger: Trigger) -> None:
        trigger.stage, trigger.ended_at = Stage.ENDED, self._clock.monotonic()
        if self._site.code:
            self._site.code.release(trigger.lease)
        self._session.move(trigger.lease, JobPhase.ENDED)
        self.on_freed()

    def _close(self, trigger: Trigger) -> None:
        self._hosts.release(trigger)
        trigger.dir.remove()
        self._session.release(trigger.lease)
        self.triggers.pop(trigger.lease, None)
        self.on_change()

    def _explain(self, trigger: Trigger, reason: str) -> None:
        self.take_lines(trigger.lease, format_line(reason, self._clock.wall()))

    def _stop_without_contact(self) -> None:
        """Stop triggers before central gives them to another worker: two copies must not run for long."""
        now = self._clock.monotonic()
        for trigger in list(self.triggers.values()):
            if trigger.stage is Stage.ENDED or trigger.stop is not None:
                continue
            left_s = self._session.left_s(trigger.lease, now)
            if left_s is not None and left_s <= 0:
                detail = f"no contact with central for {trigger.stop_after_s:.0f} s; it counts this trigger as lost by now"
                lease = trigger.lease
                self.stop(Stop(job_id=lease.job_id, epoch=lease.epoch, reason=StopReason.SUPERSEDED, detail=detail))

    def _complete_overdue_logs(self) -> None:
        """Wait no longer for the end of a log whose host does not send it: the trigger would be held for ever."""
        now = self._clock.monotonic()
        for trigger in list(self.triggers.values()):
            if trigger.stage is Stage.ENDED and trigger.log_is_open and now - trigger.ended_at > LOG_WITHIN_S:
                log.warning("trigger %s: its code did not end within %.0f s; its log ends now", trigger.lease, LOG_WITHIN_S)
                self.complete_log(trigger)

    # After a restart

    def adopt(self) -> None:
        """Resume the triggers of an earlier daemon. Call it after the hosts were adopted and before a session is opened."""
        for stored in self._spool:
            try:
                self._adopt(stored)
            except (Damaged, OSError) as error:
                where = self._spool.put_aside(stored)
                log.error("trigger %s: %s; central queues it again; moved to %s", stored.lease, error, where)
        if self.triggers:
            assert self._tasks is not None, "the keeper is not running"
            self._tasks.start_soon(self._settle, name="adoption of triggers")

    def _adopt(self, stored: TriggerDir) -> None:
        offer = stored.offer()
        event = stored.event()
        # It is not stored whether central has received the acceptance. Listed as preparing, both an offer and a running trigger
        # are kept.
        trigger = self._hold(stored, offer, JobPhase.ENDED if event else JobPhase.PREPARING)
        trigger.log.find()
        if event:
            trigger.stage, trigger.ending, trigger.has_fired = Stage.ENDED, event, True
            # Its host may have lines that the earlier daemon did not store.
            trigger.ended_at, trigger.log_is_open = self._clock.monotonic(), True
            self.report_end(trigger)
        else:
            trigger.stage = Stage.ADOPTED

    async def _settle(self) -> None:
        """Start the adopted triggers that no adopted host runs, and complete the logs that none writes."""
        await self._hosts.wait_until_settled(ADOPTED_WITHIN_S)
        for trigger in list(self.triggers.values()):
            if trigger.host is not None:
                continue
            if trigger.stage is Stage.ADOPTED:
                trigger.stage = Stage.STARTING
                self._begin(trigger)
            elif trigger.stage is Stage.CANCELLING:
                self._conclude(trigger, None)
            elif trigger.stage is Stage.ENDED and not trigger.host_id:
                self.complete_log(trigger)

    def _hold(self, stored: TriggerDir, offer: Offer, phase: JobPhase) -> Trigger:
        lease = stored.lease
        if not self._session.holds(lease):
            self._session.hold(offer, phase)
        trigger = Trigger(lease, stored, PendingLog(stored.path), offer.queue, offer.stop_after_s)
        self.triggers[lease] = trigger
        self.on_held()
        return trigger


def _workload(offer: Offer) -> TriggerWorkload:
    try:
        return decode(TriggerWorkload, bytes(offer.workload))
    except Malformed as error:
        raise Unprepared(f"central sent a workload that this worker can't read ({error}); update the older of the two") from None


def _decoded(event: bytes) -> TriggerEvent:
    """Return the event. An invalid one becomes a failure, so that the task does not wait for ever."""
    with contextlib.suppress(Malformed):
        if len(event) <= MOST_EVENT:
            return decode(TriggerEvent, event)
    reason = "the trigger host sent an event that the protocol does not allow; the runtime and the worker may not match"
    return TriggerEvent(kind=EventKind.FAILED, traceback=[reason])


def _ignore(trigger: Trigger) -> None:
    """The default listener."""


def _do_nothing() -> None:
    """The default listener."""
