"""The leases that this worker holds, and its decisions about central's replies. Uses no socket, no file and no clock.

The caller stores offers, starts and stops processes and sends polls. It reports events to this object and carries out the actions
that it returns.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from airflow_remote_protocol.messages import (
    MAX_DETAIL,
    MAX_JOBS_LISTED,
    HeldJob,
    Intent,
    IntentMode,
    JobKind,
    JobPhase,
    Offer,
    Poll,
    PollReply,
    Runtimes,
    Stop,
    StopReason,
    TaskSettings,
    WantedRelease,
)

from airflow_remote_worker.lease import SITE, Lease, runtime_of

TAKES_WORK = frozenset({IntentMode.SERVE})


@dataclass(frozen=True)
class Held:
    """One lease that this worker holds."""

    lease: Lease
    phase: JobPhase
    slots: int
    deadline_s: float
    stop_after_s: float
    since: float | None = None
    """When its offer was received (monotonic). Central counts no time without contact from before the job was accepted."""
    is_trigger: bool = False
    """A trigger takes no slots and counts against the limit of triggers instead."""
    on_trial: str | None = None
    """The runtime in which the job was taken on probation: no other is taken for it until its code has begun, or it has ended."""
    detail: str = ""
    """What is being done for it, for users."""
    is_counted: bool = False
    """Whether it counts against the limit of jobs."""


@dataclass
class Actions:
    """What the caller has to do after a reply."""

    take: list[Offer] = field(default_factory=list)
    """Offers that are now held: store, prepare and start them."""
    decline: list[tuple[Offer, str]] = field(default_factory=list)
    stop: list[Stop] = field(default_factory=list)
    """New stops for jobs of this worker, which are now held as stopping."""
    drop: list[Lease] = field(default_factory=list)
    """Leases of ended jobs that central has given to others: drop their logs and reports."""
    intent: Intent | None = None
    """The new intent, if it has changed."""
    task_settings: TaskSettings | None = None
    """The new settings, if they have changed. They apply to the offers in *take* too."""
    runtimes: Runtimes | None = None
    """The new list of runtimes, if it has changed."""
    release: WantedRelease | None = None
    """The release that the worker should run, if it has changed."""
    is_release_withdrawn: bool = False
    """Central names no release any more."""


class WorkerSession:
    """The worker's side of its session with central."""

    def __init__(self, *, slots: int, triggers: int = 0, max_jobs: int | None = None) -> None:
        self.slots = slots
        self.jobs_left = max_jobs
        """How many more jobs this worker takes; None: any number. Central's count replaces it with each session."""
        self.triggers = triggers
        """The largest number of triggers that this worker hosts."""
        self.intent = Intent(mode=IntentMode.SERVE, revision=-1)
        self.draining = False
        """Whether the daemon drains (SIGTERM), independent of the intent."""
        self.no_room = ""
        """Why this machine can't store another job; empty while it can."""
        self.task_settings_revision = ""
        """The revision of central's settings for tasks that this worker has."""
        self.runtimes_revision: str | None = None
        """The revision of the list of runtimes that this worker has; None: it takes no runtimes from central."""
        self.release_serial: int | None = None
        """The serial of the release that central named last; 0: it named none. None: this worker takes none from central."""
        self.unfit = ""
        """Why no job can run here; empty while jobs can."""
        self.ready: frozenset[str] = frozenset({SITE})
        """The runtimes in which jobs can run, if any can: digests of central's, or :data:`~.lease.SITE`."""
        self.on_probation: frozenset[str] = frozenset()
        """Those in which jobs failed before they began: one new job at a time, until one has begun."""
        self.last_contact: float | None = None
        self._held: dict[Lease, Held] = {}

    # Held leases

    def hold(self, offer: Offer, phase: JobPhase = JobPhase.PREPARING, *, since: float | None = None) -> Lease:
        """Hold *offer* from now on: a new one received at *since* (monotonic), or one found on disk after a restart."""
        lease = Lease(offer.job_id, offer.epoch)
        is_trigger = offer.kind is JobKind.TRIGGER
        slots = 0 if is_trigger else offer.slots
        runtime = runtime_of(offer)
        on_trial = runtime in self.on_probation and not is_trigger and phase is JobPhase.PREPARING
        trial = runtime if on_trial else None
        self._held[lease] = Held(lease, phase, slots, offer.deadline_s, offer.stop_after_s, since, is_trigger, trial)
        return lease

    def move(self, lease: Lease, phase: JobPhase) -> None:
        """Note that a job has reached *phase*. Earlier phases and unknown leases are ignored."""
        held = self._held.get(lease)
        if held and _ORDER[phase] > _ORDER[held.phase]:
            self._held[lease] = replace(held, phase=phase)

    def set_detail(self, lease: Lease, detail: str) -> None:
        """Note what is being done for a job. Central learns it from the next poll."""
        if held := self._held.get(lease):
            self._held[lease] = replace(held, detail=detail[:MAX_DETAIL])

    def note_declined(self, lease: Lease) -> None:
        """Note that a job that is held goes back to central: it does not count against the limit of jobs."""
        held = self._held.get(lease)
        if held and held.is_counted and self.jobs_left is not None:
            self.jobs_left += 1
            self._held[lease] = replace(held, is_counted=False)

    def release(self, lease: Lease) -> None:
        """Stop holding *lease*: it was reported and acknowledged, declined, or dropped."""
        self._held.pop(lease, None)

    def holds(self, lease: Lease) -> bool:
        return lease in self._held

    def held(self) -> list[HeldJob]:
        """Return all leases as `session` and `poll` list them."""
        return [HeldJob(job_id=h.lease.job_id, epoch=h.lease.epoch, phase=h.phase, detail=h.detail) for h in self._held.values()]

    @property
    def is_idle(self) -> bool:
        return not self._held

    @property
    def has_had_its_jobs(self) -> bool:
        """Whether all jobs that this worker takes are over."""
        return self.jobs_left == 0 and self.is_idle

    # Free capacity

    def free_slots(self) -> int:
        """Return how many slots are free for new jobs."""
        if self.draining or self.no_room or self.unfit or self.jobs_left == 0 or self.intent.mode not in TAKES_WORK:
            return 0
        if self.ready and all(self._is_on_trial(runtime) for runtime in self.ready):
            return 0
        most = self.slots if self.intent.slots is None else min(self.slots, self.intent.slots)
        return max(0, most - sum(h.slots for h in self._held.values() if h.phase is not JobPhase.ENDED))

    def _is_on_trial(self, runtime: str) -> bool:
        trials = {h.on_trial for h in self._held.values() if h.phase is not JobPhase.ENDED}
        return runtime in self.on_probation and runtime in trials

    def free_triggers(self) -> int:
        """Return how many more triggers this worker can host."""
        if self.draining or self.no_room or self.unfit or self.jobs_left == 0 or self.intent.mode not in TAKES_WORK:
            return 0
        running = sum(h.is_trigger and h.phase is not JobPhase.ENDED for h in self._held.values())
        # A poll lists all leases, so triggers must leave room in the list for tasks.
        listable = MAX_JOBS_LISTED - self.slots - len(self._held)
        return max(0, min(self.triggers - running, listable))

    def next_poll(self, longest_s: float) -> Poll:
        """Return the next poll. It is short if a longer one would be too late to renew an offer, or a lease that is lost soon."""
        held = [h for h in self._held.values() if h.phase is not JobPhase.ENDED]
        deadlines = [min(h.deadline_s, h.stop_after_s) if h.phase is JobPhase.PREPARING else h.stop_after_s for h in held]
        return Poll(
            free_slots=self.free_slots(),
            intent_revision=self.intent.revision,
            wait_s=min([longest_s, *(d / 3 for d in deadlines)]),
            jobs=self.held(),
            free_triggers=self.free_triggers(),
            task_settings_revision=self.task_settings_revision,
            runtimes_revision=self.runtimes_revision,
            release_serial=self.release_serial,
        )

    # Replies of central

    def on_reply(self, reply: PollReply, now: float | None = None) -> Actions:
        """Decide about the reply to a poll, received at *now* (monotonic)."""
        actions = Actions()
        self._on_task_settings(reply.task_settings, actions)
        self._on_runtimes(reply.runtimes, actions)
        if reply.release or reply.release_withdrawn:
            self._on_release(reply.release, actions)
        self._on_intent(reply.intent, actions)
        self._on_stops(reply.stops, actions)
        for offer in reply.offers:
            self._on_offer(offer, actions, now)
        return actions

    def open(
        self,
        intent: Intent,
        stops: Iterable[Stop],
        task_settings: TaskSettings | None = None,
        runtimes: Runtimes | None = None,
        release: WantedRelease | None = None,
        jobs_left: int | None = None,
    ) -> Actions:
        """Decide about the answer to a session request."""
        actions = Actions()
        self._on_task_settings(task_settings, actions)
        self._on_runtimes(runtimes, actions)
        self._on_release(release, actions)
        if jobs_left is not None:
            self.jobs_left = jobs_left
        # A new session's intent counts whatever its revision: central's database may have been restored from a backup.
        self.intent = actions.intent = intent
        self._on_stops(stops, actions)
        return actions

    def _on_task_settings(self, settings: TaskSettings | None, actions: Actions) -> None:
        if settings and settings.revision != self.task_settings_revision:
            self.task_settings_revision = settings.revision
            actions.task_settings = settings

    def _on_runtimes(self, runtimes: Runtimes | None, actions: Actions) -> None:
        if runtimes and self.runtimes_revision is not None:
            self.runtimes_revision = runtimes.revision
            actions.runtimes = runtimes

    def _on_release(self, release: WantedRelease | None, actions: Actions) -> None:
        if self.release_serial is not None:
            self.release_serial = release.serial if release else 0
            actions.release = release
            actions.is_release_withdrawn = release is None

    def _on_intent(self, intent: Intent | None, actions: Actions) -> None:
        if intent and intent.revision > self.intent.revision:
            self.intent = actions.intent = intent

    def _on_stops(self, stops: Iterable[Stop], actions: Actions) -> None:
        for stop in stops:
            for lease in [lease for lease in self._held if lease.job_id == stop.job_id and lease.epoch <= stop.epoch]:
                # A stop for a later epoch: central has offered the job again, so the older copy must end too.
                superseded = stop.reason is StopReason.SUPERSEDED or lease.epoch < stop.epoch
                if self._held[lease].phase is JobPhase.ENDED:
                    if superseded:
                        actions.drop.append(lease)
                elif self._held[lease].phase is not JobPhase.STOPPING:
                    self.move(lease, JobPhase.STOPPING)
                    reason = StopReason.SUPERSEDED if superseded else stop.reason
                    actions.stop.append(Stop(job_id=lease.job_id, epoch=lease.epoch, reason=reason, detail=stop.detail))

    def _on_offer(self, offer: Offer, actions: Actions, now: float | None) -> None:
        ours = [lease for lease in self._held if lease.job_id == offer.job_id]
        if any(lease.epoch >= offer.epoch for lease in ours):
            return  # a late or repeated reply
        alive = [lease for lease in ours if self._held[lease].phase is not JobPhase.ENDED]
        if alive:
            # Two copies must never run: the older one ends first, and central offers the job again after a delay.
            later = Stop(job_id=offer.job_id, epoch=offer.epoch, reason=StopReason.SUPERSEDED, detail="a newer offer exists")
            self._on_stops([later], actions)
            actions.decline.append((offer, "an earlier lease of this job is still ending on this worker"))
        elif self.draining:
            actions.decline.append((offer, "this worker is draining"))
        elif self.jobs_left == 0:
            actions.decline.append((offer, "this worker has taken as many jobs as it takes (max_jobs)"))
        elif self.no_room:
            actions.decline.append((offer, self.no_room))
        elif self.unfit:
            actions.decline.append((offer, self.unfit))
        elif runtime_of(offer) not in self.ready:
            actions.decline.append((offer, self._explain_runtime(offer)))
        elif self._is_on_trial(runtime_of(offer)):
            actions.decline.append((offer, "jobs failed in this runtime before their own code began, so one is tried at a time"))
        elif self.intent.mode not in TAKES_WORK:
            actions.decline.append((offer, f"this worker's intent is {self.intent.mode.value}"))
        elif offer.kind is JobKind.TRIGGER and self.free_triggers() < 1:
            actions.decline.append(
                (offer, f"this worker hosts {self.triggers} triggers at most (triggers), and has no room for one more")
            )
        elif offer.kind is not JobKind.TRIGGER and offer.slots > self.free_slots():
            actions.decline.append(
                (offer, f"only {self.free_slots()} of {self.slots} slots are free, the job needs {offer.slots}")
            )
        else:
            actions.drop += ours
            self._count(self.hold(offer, since=now))
            actions.take.append(offer)

    def _count(self, lease: Lease) -> None:
        if self.jobs_left is not None:
            self.jobs_left -= 1
            self._held[lease] = replace(self._held[lease], is_counted=True)

    def _explain_runtime(self, offer: Offer) -> str:
        if offer.runtime is None:
            return "the offer names no runtime, and this worker has none of its own (runtime.python)"
        return f"the runtime {offer.runtime.name!r} {offer.runtime.serial} is not ready on this worker"

    # Time without contact

    def note_contact(self, started: float) -> None:
        """Note a successful exchange with central that *started* then (monotonic)."""
        if self.last_contact is None or started > self.last_contact:
            self.last_contact = started

    def left_s(self, lease: Lease, now: float) -> float | None:
        """Return how many seconds the job may still run without contact (≤ 0: stop it); None if it is not held.

        The offer itself counts as a contact, because the poll that brought it may have begun long before.
        """
        held = self._held.get(lease)
        if held is None:
            return None
        contacts = [at for at in (self.last_contact, held.since) if at is not None]
        return max(contacts, default=now) + held.stop_after_s - now


_ORDER = {phase: n for n, phase in enumerate((JobPhase.PREPARING, JobPhase.RUNNING, JobPhase.STOPPING, JobPhase.ENDED))}
