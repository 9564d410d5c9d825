"""What this worker holds and what it makes of central's replies. Decides only: no socket, no file, no clock.

The caller stores offers, starts and stops processes and sends polls; it tells this object what happened and does what it answers.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from airflow_remote_protocol.messages import (
    MAX_JOBS_LISTED,
    HeldJob,
    Intent,
    IntentMode,
    JobKind,
    JobPhase,
    Offer,
    Poll,
    PollReply,
    Stop,
    StopReason,
    TaskSettings,
)

from airflow_remote_worker.lease import Lease

TAKES_WORK = frozenset({IntentMode.SERVE})


@dataclass(frozen=True)
class Held:
    """One lease of ours."""

    lease: Lease
    phase: JobPhase
    slots: int
    deadline_s: float
    stop_after_s: float
    since: float | None = None
    """When its offer was heard (monotonic). Central counts no silence against a job from before it was accepted."""
    is_trigger: bool = False
    """It takes no slots, and counts against the limit of triggers instead."""
    on_trial: bool = False
    """It was taken on probation: no other is taken until its code has begun, or it has ended."""


@dataclass
class Heard:
    """What a reply asks of the caller."""

    take: list[Offer] = field(default_factory=list)
    """Held from now on: store, prepare, start."""
    decline: list[tuple[Offer, str]] = field(default_factory=list)
    stop: list[Stop] = field(default_factory=list)
    """New stops for jobs of ours; now held as stopping."""
    drop: list[Lease] = field(default_factory=list)
    """Over here and not ours any more: forget log and report."""
    intent: Intent | None = None
    """It has changed to this."""
    task_settings: TaskSettings | None = None
    """They have changed to these, for what is taken too."""


class WorkerSession:
    """The worker's side of its session with central."""

    def __init__(self, *, slots: int, triggers: int = 0) -> None:
        self.slots = slots
        self.triggers = triggers
        """How many triggers this worker hosts at most."""
        self.intent = Intent(mode=IntentMode.SERVE, revision=-1)
        self.draining = False
        """Our own wish (SIGTERM), whatever the intent."""
        self.no_room = ""
        """Why this machine can't store another job; empty while it can."""
        self.task_settings_revision = ""
        """Of central's settings for tasks, as far as this worker has them."""
        self.unfit = ""
        """Why no job can run here; empty while jobs can."""
        self.on_probation = False
        """Jobs failed before they began: one new job at a time, until one has begun."""
        self.last_contact: float | None = None
        self._held: dict[Lease, Held] = {}

    # What we hold

    def hold(self, offer: Offer, phase: JobPhase = JobPhase.PREPARING, *, since: float | None = None) -> Lease:
        """Hold *offer* from now on: just taken (*since* when, monotonic), or found on disk after a restart."""
        lease = Lease(offer.job_id, offer.epoch)
        is_trigger = offer.kind is JobKind.TRIGGER
        slots = 0 if is_trigger else offer.slots
        on_trial = self.on_probation and not is_trigger and phase is JobPhase.PREPARING
        self._held[lease] = Held(lease, phase, slots, offer.deadline_s, offer.stop_after_s, since, is_trigger, on_trial)
        return lease

    def move(self, lease: Lease, phase: JobPhase) -> None:
        """Note that a job has come to *phase*; phases only go forward, and an unknown lease stays unknown."""
        held = self._held.get(lease)
        if held and _ORDER[phase] > _ORDER[held.phase]:
            self._held[lease] = replace(held, phase=phase)

    def release(self, lease: Lease) -> None:
        """Hold it no more: reported and acknowledged, declined, or dropped."""
        self._held.pop(lease, None)

    def holds(self, lease: Lease) -> bool:
        return lease in self._held

    def held(self) -> list[HeldJob]:
        """Return all leases as `session` and `poll` list them."""
        return [HeldJob(job_id=h.lease.job_id, epoch=h.lease.epoch, phase=h.phase) for h in self._held.values()]

    @property
    def is_idle(self) -> bool:
        return not self._held

    # What we would take

    def free_slots(self) -> int:
        """Return how many slots central may fill now."""
        if self.draining or self.no_room or self.unfit or self.intent.mode not in TAKES_WORK:
            return 0
        if self.on_probation and any(h.on_trial and h.phase is not JobPhase.ENDED for h in self._held.values()):
            return 0
        most = self.slots if self.intent.slots is None else min(self.slots, self.intent.slots)
        return max(0, most - sum(h.slots for h in self._held.values() if h.phase is not JobPhase.ENDED))

    def free_triggers(self) -> int:
        """Return how many more triggers central may send now."""
        if self.draining or self.no_room or self.unfit or self.intent.mode not in TAKES_WORK:
            return 0
        running = sum(h.is_trigger and h.phase is not JobPhase.ENDED for h in self._held.values())
        # A poll lists all leases, and room for the tasks must be left.
        listable = MAX_JOBS_LISTED - self.slots - len(self._held)
        return max(0, min(self.triggers - running, listable))

    def ask(self, longest_s: float) -> Poll:
        """Return the next poll. It is short where a later one would renew an offer, or a lease that is lost soon, too late."""
        held = [h for h in self._held.values() if h.phase is not JobPhase.ENDED]
        deadlines = [min(h.deadline_s, h.stop_after_s) if h.phase is JobPhase.PREPARING else h.stop_after_s for h in held]
        return Poll(
            free_slots=self.free_slots(),
            intent_revision=self.intent.revision,
            wait_s=min([longest_s, *(d / 3 for d in deadlines)]),
            jobs=self.held(),
            free_triggers=self.free_triggers(),
            task_settings_revision=self.task_settings_revision,
        )

    # What central says

    def hear(self, reply: PollReply, now: float | None = None) -> Heard:
        """Decide about a poll's reply, which has come *now* (monotonic)."""
        heard = Heard()
        self._hear_task_settings(reply.task_settings, heard)
        self._hear_intent(reply.intent, heard)
        self._hear_stops(reply.stops, heard)
        for offer in reply.offers:
            self._hear_offer(offer, heard, now)
        return heard

    def open(self, intent: Intent, stops: Iterable[Stop], task_settings: TaskSettings | None = None) -> Heard:
        """Decide about a session's answer."""
        heard = Heard()
        self._hear_task_settings(task_settings, heard)
        # Central's word at the start holds whatever its revision: its database may have been restored from a backup.
        self.intent = heard.intent = intent
        self._hear_stops(stops, heard)
        return heard

    def _hear_task_settings(self, settings: TaskSettings | None, heard: Heard) -> None:
        if settings and settings.revision != self.task_settings_revision:
            self.task_settings_revision = settings.revision
            heard.task_settings = settings

    def _hear_intent(self, intent: Intent | None, heard: Heard) -> None:
        if intent and intent.revision > self.intent.revision:
            self.intent = heard.intent = intent

    def _hear_stops(self, stops: Iterable[Stop], heard: Heard) -> None:
        for stop in stops:
            for lease in [lease for lease in self._held if lease.job_id == stop.job_id and lease.epoch <= stop.epoch]:
                # A stop for a later epoch than ours: the job has moved on, so ours must end too.
                superseded = stop.reason is StopReason.SUPERSEDED or lease.epoch < stop.epoch
                if self._held[lease].phase is JobPhase.ENDED:
                    if superseded:
                        heard.drop.append(lease)
                elif self._held[lease].phase is not JobPhase.STOPPING:
                    self.move(lease, JobPhase.STOPPING)
                    reason = StopReason.SUPERSEDED if superseded else stop.reason
                    heard.stop.append(Stop(job_id=lease.job_id, epoch=lease.epoch, reason=reason, detail=stop.detail))

    def _hear_offer(self, offer: Offer, heard: Heard, now: float | None) -> None:
        ours = [lease for lease in self._held if lease.job_id == offer.job_id]
        if any(lease.epoch >= offer.epoch for lease in ours):
            return  # a reply that came late, or twice
        alive = [lease for lease in ours if self._held[lease].phase is not JobPhase.ENDED]
        if alive:
            # Two copies must never run: the older one winds down first, the job comes back after its delay.
            later = Stop(job_id=offer.job_id, epoch=offer.epoch, reason=StopReason.SUPERSEDED, detail="a newer offer exists")
            self._hear_stops([later], heard)
            heard.decline.append((offer, "an earlier lease of this job is still ending on this worker"))
        elif self.draining:
            heard.decline.append((offer, "this worker is draining"))
        elif self.no_room:
            heard.decline.append((offer, self.no_room))
        elif self.unfit:
            heard.decline.append((offer, self.unfit))
        elif self.intent.mode not in TAKES_WORK:
            heard.decline.append((offer, f"this worker is to {self.intent.mode.value}"))
        elif offer.kind is JobKind.TRIGGER and self.free_triggers() < 1:
            heard.decline.append(
                (offer, f"this worker hosts {self.triggers} triggers at most (triggers), and has no room for one more")
            )
        elif offer.kind is not JobKind.TRIGGER and offer.slots > self.free_slots():
            heard.decline.append((offer, f"only {self.free_slots()} of {self.slots} slots are free, the job needs {offer.slots}"))
        else:
            heard.drop += ours
            self.hold(offer, since=now)
            heard.take.append(offer)

    # How long we may go on without central

    def note_contact(self, started: float) -> None:
        """Note a good exchange by the moment at which it *started* (monotonic)."""
        if self.last_contact is None or started > self.last_contact:
            self.last_contact = started

    def left_s(self, lease: Lease, now: float) -> float | None:
        """Return for how long the job may still run without contact (≤ 0: stop it); None if we don't hold it.

        The poll that brought its offer may have begun long before: the offer itself is a contact for it.
        """
        held = self._held.get(lease)
        if held is None:
            return None
        contacts = [at for at in (self.last_contact, held.since) if at is not None]
        return max(contacts, default=now) + held.stop_after_s - now


_ORDER = {phase: n for n, phase in enumerate((JobPhase.PREPARING, JobPhase.RUNNING, JobPhase.STOPPING, JobPhase.ENDED))}
