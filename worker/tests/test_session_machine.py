"""The worker's session against a central that keeps docs/protocol.md, over a network that loses, repeats and reorders.

Central is a small model of the ledger (what it does for real has a machine of its own in provider/tests/ledger); the supervisor
is a set of leases whose tasks are alive, and what of it is on disk.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from itertools import count

import msgspec
from airflow_remote_protocol.messages import (
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
)
from airflow_remote_protocol.states import JobEvent, JobState, advance
from airflow_remote_worker.lease import Lease
from airflow_remote_worker.session import Heard, WorkerSession
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from testkit.machines import search

SLOTS = 4
NOT_TOLD_AGAIN = (JobPhase.STOPPING, JobPhase.ENDED)
LIVE_AT_CENTRAL = (JobState.OFFERED, JobState.RUNNING)


@dataclass
class CentralJob:
    slots: int
    state: JobState = JobState.QUEUED
    epoch: int = 0
    is_stopped: bool = False

    def move(self, event: JobEvent) -> None:
        self.state = advance(self.state, event)


@dataclass
class ModelCentral:
    """What docs/protocol.md says of one worker's jobs."""

    jobs: dict[str, CentralJob] = field(default_factory=dict)
    intent: Intent = field(default_factory=lambda: Intent(mode=IntentMode.SERVE, revision=1))

    def open(self, held: list[HeldJob]) -> tuple[Intent, list[Stop]]:
        listed = {(job.job_id, job.epoch) for job in held}
        for job_id, job in self.jobs.items():
            if job.state in LIVE_AT_CENTRAL and (job_id, job.epoch) not in listed:
                job.move(JobEvent.WITHDRAW if job.state is JobState.OFFERED else JobEvent.LOSE)
        return self.intent, self._stops(held)

    def poll(self, poll: Poll) -> PollReply:
        if stops := self._stops(poll.jobs):
            return PollReply(poll_s=50, stops=stops)
        if self.intent.revision > poll.intent_revision:
            return PollReply(poll_s=50, intent=self.intent)
        used = sum(job.slots for job in self.jobs.values() if job.state in LIVE_AT_CENTRAL)
        most = SLOTS if self.intent.slots is None else min(SLOTS, self.intent.slots)
        free = min(poll.free_slots, most - used) if self.intent.mode is IntentMode.SERVE else 0
        offers = []
        for job_id, job in self.jobs.items():
            if job.state is JobState.QUEUED and job.slots <= free:
                job.move(JobEvent.OFFER)
                job.epoch += 1
                free -= job.slots
                offers.append(an_offer(job_id, job.epoch, job.slots))
        return PollReply(poll_s=50, offers=offers)

    def _stops(self, held: list[HeldJob]) -> list[Stop]:
        stops = []
        for mine in held:
            job = self.jobs[mine.job_id]
            if mine.phase in NOT_TOLD_AGAIN:
                continue
            if job.epoch != mine.epoch or job.state is JobState.QUEUED:
                stops.append(Stop(mine.job_id, mine.epoch, StopReason.SUPERSEDED))
            elif job.is_stopped:
                stops.append(Stop(mine.job_id, mine.epoch, StopReason.ENDED))
            elif job.state.is_ended:
                stops.append(Stop(mine.job_id, mine.epoch, StopReason.SUPERSEDED))
        return stops

    def accept(self, lease: Lease) -> bool:
        job = self.jobs[lease.job_id]
        if job.epoch != lease.epoch or job.state not in LIVE_AT_CENTRAL:
            return False
        if job.state is JobState.OFFERED:
            job.move(JobEvent.ACCEPT)
        return True

    def decline(self, lease: Lease) -> None:
        job = self.jobs[lease.job_id]
        if job.epoch == lease.epoch and job.state is JobState.OFFERED:
            job.move(JobEvent.DECLINE)

    def report(self, lease: Lease) -> None:
        """Acknowledged or superseded: to the worker it is the same."""
        job = self.jobs[lease.job_id]
        if job.epoch == lease.epoch and job.state in LIVE_AT_CENTRAL:
            job.move(JobEvent.REVOKE if job.is_stopped else JobEvent.FAIL)


def an_offer(job_id: str, epoch: int, slots: int) -> Offer:
    return Offer(
        job_id=job_id,
        epoch=epoch,
        kind=JobKind.TASK,
        queue="q",
        slots=slots,
        deadline_s=30,
        stop_after_s=3540,
        workload=msgspec.Raw(b"{}"),
    )


class SessionMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.central = ModelCentral()
        self.session = WorkerSession(slots=SLOTS)
        self.flying: list[PollReply] = []
        self.declines: list[Lease] = []
        self.on_disk: dict[Lease, Offer] = {}
        self.alive: set[Lease] = set()
        """Leases whose user code runs."""
        self.has_run: Counter[Lease] = Counter()
        self.stopped: Counter[Lease] = Counter()
        """How often each was told to stop since the daemon's start."""
        self.numbers = count()
        self.open_session()
        for slots in (1, 2, 3):
            self.a_job_is_queued(slots)

    # Central's side

    @rule(slots=st.integers(1, 3))
    def a_job_is_queued(self, slots: int) -> None:
        self.central.jobs[f"job-{next(self.numbers)}"] = CentralJob(slots)

    @precondition(lambda self: self._central_jobs(JobState.OFFERED))
    @rule(data=st.data())
    def an_offers_deadline_passes(self, data: st.DataObject) -> None:
        self.central.jobs[data.draw(st.sampled_from(self._central_jobs(JobState.OFFERED)))].move(JobEvent.EXPIRE)

    @precondition(lambda self: self._central_jobs(*LIVE_AT_CENTRAL))
    @rule(data=st.data())
    def a_person_ends_a_task(self, data: st.DataObject) -> None:
        job = self.central.jobs[data.draw(st.sampled_from(self._central_jobs(*LIVE_AT_CENTRAL)))]
        job.is_stopped = True
        if job.state is JobState.OFFERED:
            job.move(JobEvent.REVOKE)

    @precondition(lambda self: self._central_jobs(JobState.RUNNING))
    @rule(data=st.data())
    def central_calls_a_job_lost(self, data: st.DataObject) -> None:
        self.central.jobs[data.draw(st.sampled_from(self._central_jobs(JobState.RUNNING)))].move(JobEvent.LOSE)

    @rule(
        mode=st.sampled_from([IntentMode.SERVE] * 9 + [IntentMode.PAUSE, IntentMode.DRAIN, IntentMode.LEAVE]),
        slots=st.none() | st.integers(0, SLOTS),
    )
    def people_change_their_wish(self, mode: IntentMode, slots: int | None) -> None:
        self.central.intent = Intent(mode=mode, revision=self.central.intent.revision + 1, slots=slots)

    # The network

    @rule()
    def a_poll_is_answered(self) -> None:
        """As almost always."""
        reply = self.central.poll(self.session.ask(50))
        self._obey(lambda: self.session.hear(reply))

    @rule()
    def a_poll_is_sent(self) -> None:
        self.flying.append(self.central.poll(self.session.ask(50)))

    @precondition(lambda self: self.flying)
    @rule(data=st.data(), again=st.booleans())
    def a_reply_arrives(self, data: st.DataObject, again: bool) -> None:
        which = data.draw(st.integers(0, len(self.flying) - 1))
        reply = self.flying[which] if again else self.flying.pop(which)
        before = self.session.intent.revision
        self._obey(lambda: self.session.hear(reply))
        assert self.session.intent.revision >= before, "an older wish never replaces a newer one"

    @precondition(lambda self: self.flying)
    @rule(data=st.data())
    def a_reply_is_lost(self, data: st.DataObject) -> None:
        self.flying.pop(data.draw(st.integers(0, len(self.flying) - 1)))

    @precondition(lambda self: self.declines)
    @rule(data=st.data(), is_lost=st.booleans())
    def a_decline_arrives(self, data: st.DataObject, is_lost: bool) -> None:
        lease = self.declines.pop(data.draw(st.integers(0, len(self.declines) - 1)))
        if not is_lost:
            self.central.decline(lease)

    @rule()
    def open_session(self) -> None:
        """The same daemon again, or its first time: what is on its way under an older session still arrives."""
        intent, stops = self.central.open(self.session.held())
        self._obey(lambda: self.session.open(intent, stops))
        assert self.session.intent == self.central.intent

    # The worker's side

    @precondition(lambda self: self._not_run_yet())
    @rule(data=st.data(), is_answered=st.booleans())
    def a_task_asks_to_run(self, data: st.DataObject, is_answered: bool) -> None:
        """Its call may have been on its way when a stop came."""
        lease = data.draw(st.sampled_from(self._not_run_yet()))
        accepted = self.central.accept(lease)
        if not is_answered:
            return  # it asks again
        if accepted:
            self.session.move(lease, JobPhase.RUNNING)
            self.alive.add(lease)
            self.has_run[lease] += 1
        else:
            self._forget(lease)

    @precondition(lambda self: self.session.held())
    @rule(data=st.data())
    def a_task_ends(self, data: st.DataObject) -> None:
        """By itself, by a stop, or because it couldn't be prepared."""
        open_ones = self._held(JobPhase.PREPARING, JobPhase.RUNNING, JobPhase.STOPPING)
        if open_ones:
            lease = data.draw(st.sampled_from(open_ones))
            self.alive.discard(lease)
            self.session.move(lease, JobPhase.ENDED)

    @precondition(lambda self: self._held(JobPhase.ENDED))
    @rule(data=st.data(), is_lost=st.booleans(), is_answered=st.booleans())
    def a_report_is_sent(self, data: st.DataObject, is_lost: bool, is_answered: bool) -> None:
        lease = data.draw(st.sampled_from(self._held(JobPhase.ENDED)))
        if not is_lost:
            self.central.report(lease)
            if is_answered:
                self._forget(lease)

    @rule()
    def the_daemon_is_killed_and_started_again(self) -> None:
        """Its tasks run on; what it had in memory is gone, and so are its connections."""
        ended = set(self._held(JobPhase.ENDED))
        self.session = WorkerSession(slots=SLOTS)
        self.flying, self.declines, self.stopped = [], [], Counter()
        for lease, offer in self.on_disk.items():
            self.session.hold(offer)
            if lease in self.alive:
                self.session.move(lease, JobPhase.RUNNING)
            if lease in ended:
                self.session.move(lease, JobPhase.ENDED)
        self.open_session()

    @rule(is_meant=st.sampled_from([True] + [False] * 3))
    def sigterm(self, is_meant: bool) -> None:
        """Rarely: nothing is taken from then on, until the next start."""
        self.session.draining = is_meant or self.session.draining
        if not is_meant:
            return
        assert self.session.free_slots() == 0

    # What must hold

    @invariant()
    def no_job_is_held_twice_while_one_of_them_lives(self) -> None:
        live = Counter(lease.job_id for lease in self._held(JobPhase.PREPARING, JobPhase.RUNNING, JobPhase.STOPPING))
        assert max(live.values(), default=0) <= 1, live

    @invariant()
    def no_two_copies_run_and_no_lease_runs_twice(self) -> None:
        running = Counter(lease.job_id for lease in self.alive)
        assert max(running.values(), default=0) <= 1, running
        assert max(self.has_run.values(), default=0) <= 1, self.has_run

    @invariant()
    def what_runs_at_central_is_held_here(self) -> None:
        for job_id in self._central_jobs(JobState.RUNNING):
            assert self.session.holds(Lease(job_id, self.central.jobs[job_id].epoch)), f"{job_id} would be lost"

    @invariant()
    def what_is_held_is_on_disk(self) -> None:
        assert {Lease(job.job_id, job.epoch) for job in self.session.held()} == set(self.on_disk)

    @invariant()
    def slots_are_never_negative(self) -> None:
        assert 0 <= self.session.free_slots() <= SLOTS

    def teardown(self) -> None:
        """With a network that works again, everything held is released."""
        for _ in range(3 + len(self.session.held())):
            self._obey(lambda: self.session.hear(self.central.poll(self.session.ask(50))))
            for lease in self._held(JobPhase.PREPARING, JobPhase.RUNNING, JobPhase.STOPPING):
                self.alive.discard(lease)
                self.session.move(lease, JobPhase.ENDED)
            for lease in self._held(JobPhase.ENDED):
                self.central.report(lease)
                self._forget(lease)
            self.session.draining = True
        assert self.session.is_idle, f"never released: {self.session.held()}"

    # How the supervisor obeys

    def _obey(self, say: object) -> None:
        phases = {Lease(job.job_id, job.epoch): job.phase for job in self.session.held()}
        newest: dict[str, int] = {}
        for lease in phases:
            newest[lease.job_id] = max(lease.epoch, newest.get(lease.job_id, 0))
        used = self._used()
        heard: Heard = say()  # type: ignore[operator]
        for stop in heard.stop:
            lease = Lease(stop.job_id, stop.epoch)
            assert phases[lease] not in NOT_TOLD_AGAIN, f"{lease} is {phases[lease].value} already"
            job = self.central.jobs[lease.job_id]
            is_over = job.is_stopped or job.state not in LIVE_AT_CENTRAL or job.epoch != lease.epoch
            assert is_over, f"{lease} is stopped, but central wants it to run"
            self.stopped[lease] += 1
            assert self.stopped[lease] == 1, f"{lease} is stopped a second time"
        for lease in heard.drop:
            assert phases[lease] is JobPhase.ENDED, f"{lease} is {phases[lease].value}; its task would run on unseen"
            self._forget(lease)
        for offer in heard.take:
            lease = Lease(offer.job_id, offer.epoch)
            assert offer.epoch > newest.get(offer.job_id, 0), f"{lease}: an epoch goes back"
            assert lease not in phases, f"{lease} is taken twice"
            self.on_disk[lease] = offer
        most = SLOTS if self.session.intent.slots is None else min(SLOTS, self.session.intent.slots)
        assert self._used() <= max(used, most), "more was taken than was free"
        assert not (heard.take and self.session.draining), "a draining worker takes nothing"
        self.declines += [Lease(offer.job_id, offer.epoch) for offer, _ in heard.decline]

    def _used(self) -> int:
        return sum(self.on_disk[lease].slots for lease in self._held(JobPhase.PREPARING, JobPhase.RUNNING, JobPhase.STOPPING))

    def _forget(self, lease: Lease) -> None:
        self.alive.discard(lease)
        self.session.release(lease)
        self.on_disk.pop(lease, None)

    def _held(self, *phases: JobPhase) -> list[Lease]:
        return [Lease(job.job_id, job.epoch) for job in self.session.held() if job.phase in phases]

    def _not_run_yet(self) -> list[Lease]:
        return [lease for lease in self._held(JobPhase.PREPARING, JobPhase.STOPPING) if not self.has_run[lease]]

    def _central_jobs(self, *states: JobState) -> list[str]:
        return [job_id for job_id, job in self.central.jobs.items() if job.state in states]


def test_a_session_keeps_its_promises_whatever_the_network_does() -> None:
    search(SessionMachine, examples=400, steps=50)
