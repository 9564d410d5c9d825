"""The worker's session against a model of central by docs/protocol.md, over a network that loses, repeats and reorders messages.

Central is a small model of the ledger, whose real code is tested in provider/tests/ledger. The supervisor is modelled by the set
of leases with running tasks, and by the leases on disk.
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
from airflow_remote_worker.session import Actions, WorkerSession
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from testkit.machines import search

SLOTS = 4
NOT_STOPPED_AGAIN = (JobPhase.STOPPING, JobPhase.ENDED)
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
    """A model of central's rules for one worker's jobs, by docs/protocol.md."""

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
            if mine.phase in NOT_STOPPED_AGAIN:
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
        """Both answers, acknowledged and superseded, mean the same to the worker."""
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
        self.replies_in_flight: list[PollReply] = []
        self.declines: list[Lease] = []
        self.on_disk: dict[Lease, Offer] = {}
        self.alive: set[Lease] = set()
        """Leases whose user code runs."""
        self.has_run: Counter[Lease] = Counter()
        self.stopped: Counter[Lease] = Counter()
        """How often each lease was stopped since the daemon's start."""
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
    def a_user_ends_a_task(self, data: st.DataObject) -> None:
        job = self.central.jobs[data.draw(st.sampled_from(self._central_jobs(*LIVE_AT_CENTRAL)))]
        job.is_stopped = True
        if job.state is JobState.OFFERED:
            job.move(JobEvent.REVOKE)

    @precondition(lambda self: self._central_jobs(JobState.RUNNING))
    @rule(data=st.data())
    def central_marks_a_job_lost(self, data: st.DataObject) -> None:
        self.central.jobs[data.draw(st.sampled_from(self._central_jobs(JobState.RUNNING)))].move(JobEvent.LOSE)

    @rule(
        mode=st.sampled_from([IntentMode.SERVE] * 9 + [IntentMode.PAUSE, IntentMode.DRAIN, IntentMode.LEAVE]),
        slots=st.none() | st.integers(0, SLOTS),
    )
    def an_administrator_changes_the_intent(self, mode: IntentMode, slots: int | None) -> None:
        self.central.intent = Intent(mode=mode, revision=self.central.intent.revision + 1, slots=slots)

    # The network

    @rule()
    def a_poll_is_answered(self) -> None:
        """The usual case: nothing is lost or delayed."""
        reply = self.central.poll(self.session.next_poll(50))
        self._obey(lambda: self.session.on_reply(reply))

    @rule()
    def a_poll_is_sent(self) -> None:
        self.replies_in_flight.append(self.central.poll(self.session.next_poll(50)))

    @precondition(lambda self: self.replies_in_flight)
    @rule(data=st.data(), again=st.booleans())
    def a_reply_arrives(self, data: st.DataObject, again: bool) -> None:
        which = data.draw(st.integers(0, len(self.replies_in_flight) - 1))
        reply = self.replies_in_flight[which] if again else self.replies_in_flight.pop(which)
        before = self.session.intent.revision
        self._obey(lambda: self.session.on_reply(reply))
        assert self.session.intent.revision >= before, "an older intent never replaces a newer one"

    @precondition(lambda self: self.replies_in_flight)
    @rule(data=st.data())
    def a_reply_is_lost(self, data: st.DataObject) -> None:
        self.replies_in_flight.pop(data.draw(st.integers(0, len(self.replies_in_flight) - 1)))

    @precondition(lambda self: self.declines)
    @rule(data=st.data(), is_lost=st.booleans())
    def a_decline_arrives(self, data: st.DataObject, is_lost: bool) -> None:
        lease = self.declines.pop(data.draw(st.integers(0, len(self.declines) - 1)))
        if not is_lost:
            self.central.decline(lease)

    @rule()
    def open_session(self) -> None:
        """Open the first or another session of the same daemon. Replies to an older session still arrive."""
        intent, stops = self.central.open(self.session.held())
        self._obey(lambda: self.session.open(intent, stops))
        assert self.session.intent == self.central.intent

    # The worker's side

    @precondition(lambda self: self._not_run_yet())
    @rule(data=st.data(), is_answered=st.booleans())
    def a_task_asks_to_run(self, data: st.DataObject, is_answered: bool) -> None:
        """The call may have been sent before a stop arrived."""
        lease = data.draw(st.sampled_from(self._not_run_yet()))
        accepted = self.central.accept(lease)
        if not is_answered:
            return  # it calls again
        if accepted:
            self.session.move(lease, JobPhase.RUNNING)
            self.alive.add(lease)
            self.has_run[lease] += 1
        else:
            self._forget(lease)

    @precondition(lambda self: self.session.held())
    @rule(data=st.data())
    def a_task_ends(self, data: st.DataObject) -> None:
        """A task ends by itself, by a stop, or because it couldn't be prepared."""
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
        """Its tasks run on; its memory and its connections are lost."""
        ended = set(self._held(JobPhase.ENDED))
        self.session = WorkerSession(slots=SLOTS)
        self.replies_in_flight, self.declines, self.stopped = [], [], Counter()
        for lease, offer in self.on_disk.items():
            self.session.hold(offer)
            if lease in self.alive:
                self.session.move(lease, JobPhase.RUNNING)
            if lease in ended:
                self.session.move(lease, JobPhase.ENDED)
        self.open_session()

    @rule(is_meant=st.sampled_from([True] + [False] * 3))
    def sigterm(self, is_meant: bool) -> None:
        """Drain, rarely: no offer is taken until the next start."""
        self.session.draining = is_meant or self.session.draining
        if not is_meant:
            return
        assert self.session.free_slots() == 0

    # What must hold

    @invariant()
    def no_job_is_held_twice_while_one_copy_lives(self) -> None:
        live = Counter(lease.job_id for lease in self._held(JobPhase.PREPARING, JobPhase.RUNNING, JobPhase.STOPPING))
        assert max(live.values(), default=0) <= 1, live

    @invariant()
    def no_two_copies_run_and_no_lease_runs_twice(self) -> None:
        running = Counter(lease.job_id for lease in self.alive)
        assert max(running.values(), default=0) <= 1, running
        assert max(self.has_run.values(), default=0) <= 1, self.has_run

    @invariant()
    def every_job_that_runs_at_central_is_held(self) -> None:
        for job_id in self._central_jobs(JobState.RUNNING):
            assert self.session.holds(Lease(job_id, self.central.jobs[job_id].epoch)), f"{job_id} would be lost"

    @invariant()
    def every_held_lease_is_on_disk(self) -> None:
        assert {Lease(job.job_id, job.epoch) for job in self.session.held()} == set(self.on_disk)

    @invariant()
    def slots_are_never_negative(self) -> None:
        assert 0 <= self.session.free_slots() <= SLOTS

    def teardown(self) -> None:
        """With a network that works again, everything held is released."""
        for _ in range(3 + len(self.session.held())):
            self._obey(lambda: self.session.on_reply(self.central.poll(self.session.next_poll(50))))
            for lease in self._held(JobPhase.PREPARING, JobPhase.RUNNING, JobPhase.STOPPING):
                self.alive.discard(lease)
                self.session.move(lease, JobPhase.ENDED)
            for lease in self._held(JobPhase.ENDED):
                self.central.report(lease)
                self._forget(lease)
            self.session.draining = True
        assert self.session.is_idle, f"never released: {self.session.held()}"

    # The supervisor

    def _obey(self, act: object) -> None:
        phases = {Lease(job.job_id, job.epoch): job.phase for job in self.session.held()}
        newest: dict[str, int] = {}
        for lease in phases:
            newest[lease.job_id] = max(lease.epoch, newest.get(lease.job_id, 0))
        used = self._used()
        actions: Actions = act()  # type: ignore[operator]
        for stop in actions.stop:
            lease = Lease(stop.job_id, stop.epoch)
            assert phases[lease] not in NOT_STOPPED_AGAIN, f"{lease} is {phases[lease].value} already"
            job = self.central.jobs[lease.job_id]
            is_over = job.is_stopped or job.state not in LIVE_AT_CENTRAL or job.epoch != lease.epoch
            assert is_over, f"{lease} is stopped, but central wants it to run"
            self.stopped[lease] += 1
            assert self.stopped[lease] == 1, f"{lease} is stopped a second time"
        for lease in actions.drop:
            assert phases[lease] is JobPhase.ENDED, f"{lease} is {phases[lease].value}; its task would run on unseen"
            self._forget(lease)
        for offer in actions.take:
            lease = Lease(offer.job_id, offer.epoch)
            assert offer.epoch > newest.get(offer.job_id, 0), f"{lease}: an epoch goes back"
            assert lease not in phases, f"{lease} is taken twice"
            self.on_disk[lease] = offer
        most = SLOTS if self.session.intent.slots is None else min(SLOTS, self.session.intent.slots)
        assert self._used() <= max(used, most), "more was taken than was free"
        assert not (actions.take and self.session.draining), "a draining worker takes nothing"
        self.declines += [Lease(offer.job_id, offer.epoch) for offer, _ in actions.decline]

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


def test_the_invariants_hold_on_a_faulty_network() -> None:
    search(SessionMachine, examples=400, steps=50)
