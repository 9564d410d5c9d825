"""The fake central's state in memory: enrolment tokens, workers, jobs, and their changes.

Owns every decision about a worker's rights and a job's state; HTTP is :mod:`.routes`'s. It has no threads: callers hold
:attr:`Ledger.changed` around each call, and a change that a waiting poll may depend on notifies it.
"""

from __future__ import annotations

import fnmatch
import json
import secrets
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
from airflow_remote_protocol.errors import Problem, ProblemCode, make_problem
from airflow_remote_protocol.messages import (
    ChunkResult,
    Enrolment,
    HeldJob,
    HeldRelease,
    HeldRuntime,
    Intent,
    IntentMode,
    JobKind,
    JobPhase,
    LogChunk,
    Offer,
    Outcome,
    Report,
    Runtime,
    RuntimeRef,
    Runtimes,
    SessionRequest,
    Stop,
    StopReason,
    TaskSettings,
    TreeRef,
    TriggerEvent,
    Usage,
    WantedRelease,
)
from airflow_remote_protocol.states import JobEvent, JobState, advance
from airflow_remote_protocol.task_settings import compute_revision
from airflow_remote_protocol.tokens import TOKEN_BYTES, MalformedToken, TokenKind, check_token, hash_token, make_token
from airflow_remote_protocol.version import Capability, VersionMismatch, check_version

from airflow_remote_worker.testing.runtimes import ReleaseBook, RuntimeBook

HANDOVER_S = 60.0
"""How long a replaced credential is accepted after the new one's first use."""
MAX_REOFFERS = 3
"""docs/protocol.md, "Sessions, polls, leases"."""


class Refusal(Exception):
    """Central refuses a request: the problem is the whole answer, and nothing has changed."""

    def __init__(self, code: ProblemCode, detail: str, *, size: int | None = None) -> None:
        super().__init__(detail)
        self.problem: Problem = make_problem(code, detail, size=size)


@dataclass
class EnrolmentToken:
    queues: list[str]
    name_pattern: str
    uses_left: int
    expires_at: float


@dataclass
class Worker:
    worker_id: str
    name: str
    queues: list[str]
    is_revoked: bool = False
    is_suspended: bool = False
    credential: str = ""
    """Hash of the current credential; below, of the next, which is not used yet, and of the previous one."""
    next_credential: str = ""
    past_credential: str = ""
    past_is_taken_until: float = 0.0
    made_at: float = 0.0
    next_made_at: float = 0.0
    expires_at: float = 0.0
    replays_seen: int = 0
    clones_seen: int = 0
    intent: Intent = field(default_factory=lambda: Intent(mode=IntentMode.SERVE, revision=1))
    instance_id: str | None = None
    boot_id: str | None = None
    previous_boot_id: str | None = None
    refused_boot_id: str | None = None
    session_id: str | None = None
    session: SessionRequest | None = None
    worker_log: bytearray = field(default_factory=bytearray)
    worker_log_stretch: tuple[str, int] = ("", 0)
    """The current stretch's name, and the position of its offset 0 in the log."""
    runtime: Runtime | None = None
    """Its last report."""
    usage: Usage | None = None
    """Its last report."""
    inventory: list[str] | None = None
    """The trees that it holds, by its last report."""
    runtimes: list[HeldRuntime] = field(default_factory=list)
    """The runtimes from central that it holds, by its last report."""
    release: HeldRelease | None = None
    """What has become of the release that it should run, by its last report; below, the tree of the one that it runs."""
    running: str = ""
    is_ephemeral: bool = False
    max_jobs: int | None = None
    """How many jobs it is offered; None: any number. The fake counts all of its jobs, over all of its starts."""
    newest_poll: int = 0
    """Number of the newest poll, which alone is answered; it ends older ones."""


@dataclass
class Job:
    job_id: str
    queue: str
    slots: int
    priority: int
    workload: bytes
    """The workload of its kind as JSON."""
    kind: JobKind = JobKind.TASK
    tree: TreeRef | None = None
    """The code that it runs."""
    runtime: RuntimeRef | None = None
    """The runtime of its last offer; None: the site's own."""
    state: JobState = JobState.QUEUED
    epoch: int = 0
    worker_id: str | None = None
    """The worker that has the lease, or had the last one."""
    expired_offers: int = 0
    deadline: float = 0.0
    """Of the offer."""
    not_before: float = 0.0
    """Not offered before this time."""
    stop: StopReason | None = None
    """Why a user or central ended it; None: it was not ended."""
    concluded_as: bytes | None = None
    """The body of the call with the task's own terminal state, after which the lease allows no other call."""
    has_moved_on: bool = False
    """Whether, after that, its task has become another job's."""
    report: Report | None = None
    late_report: Report | None = None
    """A report after the job had been lost, which was refused."""
    event: TriggerEvent | None = None
    """How a trigger ended."""
    declines: list[str] = field(default_factory=list)
    """Reasons, the oldest first."""
    is_missing: bool = False
    """Whether its worker opened a session that did not list it, and no poll has listed it since."""
    log: bytearray = field(default_factory=bytearray)
    """Of the last lease."""
    history: list[JobState] = field(default_factory=lambda: [JobState.QUEUED])

    @property
    def counts(self) -> bool:
        """Whether its worker has taken it, as far as central knows."""
        was_taken = JobState.RUNNING in self.history or self.report is not None
        return self.state is JobState.OFFERED or (was_taken and self.state is not JobState.QUEUED)

    @property
    def ti_id(self) -> str:
        """Of a task, or of the task that waits for a trigger."""
        return str(json.loads(self.workload)["ti"]["id"])

    def move(self, event: JobEvent) -> None:
        self.state = advance(self.state, event)
        self.history.append(self.state)


class Ledger:
    """All state of the fake central. Times are *clock*'s (monotonic seconds)."""

    def __init__(
        self,
        *,
        offer_deadline_s: float,
        redelivery_s: float,
        stop_after_s: float,
        credential_s: float = 30 * 86400.0,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.credential_s = credential_s
        self.offer_deadline_s = offer_deadline_s
        self.redelivery_s = redelivery_s
        self.stop_after_s = stop_after_s
        self.task_settings = TaskSettings(compute_revision({}), {})
        self.runtimes = RuntimeBook()
        self.releases = ReleaseBook()
        self.changed = threading.Condition()
        self.tokens: dict[str, EnrolmentToken] = {}
        self.workers: dict[str, Worker] = {}
        self.jobs: dict[str, Job] = {}
        self._clock = clock
        self._worker_ids: dict[str, str] = {}
        """By the hash of the credential."""

    # Workers

    def issue_token(self, queues: Sequence[str], *, name_pattern: str, uses: int, expires_s: float) -> str:
        token = make_token(TokenKind.ENROLMENT, secrets.token_bytes(TOKEN_BYTES))
        self.tokens[hash_token(token)] = EnrolmentToken(list(queues), name_pattern, uses, self._clock() + expires_s)
        return token

    def enrol(self, token: str, enrolment: Enrolment) -> tuple[Worker, str]:
        """Return the new worker and its credential."""
        known = self.tokens.get(hash_token(token))
        if known is None or known.uses_left < 1 or known.expires_at <= self._clock():
            raise Refusal(ProblemCode.TOKEN_REFUSED, "the enrolment token is unknown, used up or expired; ask for a new one")
        if not fnmatch.fnmatchcase(enrolment.name, known.name_pattern):
            raise Refusal(ProblemCode.TOKEN_REFUSED, f"the enrolment token is for names like {known.name_pattern}")
        if any(worker.name == enrolment.name and not worker.is_revoked for worker in self.workers.values()):
            raise Refusal(
                ProblemCode.NAME_TAKEN, f"a worker named {enrolment.name} exists; choose another name or revoke it first"
            )
        known.uses_left -= 1
        worker = Worker(str(uuid.uuid4()), enrolment.name, list(known.queues), is_ephemeral=enrolment.ephemeral)
        self.workers[worker.worker_id] = worker
        credential = self._make_credential(worker)
        worker.credential, worker.made_at = hash_token(credential), self._clock()
        worker.expires_at = worker.made_at + self.credential_s
        return worker, credential

    def _make_credential(self, worker: Worker) -> str:
        credential = make_token(TokenKind.WORKER, secrets.token_bytes(TOKEN_BYTES))
        self._worker_ids[hash_token(credential)] = worker.worker_id
        return credential

    def authenticate(self, credential: str) -> Worker:
        digest = hash_token(_well_formed(TokenKind.WORKER, credential))
        worker_id = self._worker_ids.get(digest)
        if worker_id is None:
            raise Refusal(ProblemCode.UNAUTHORIZED, "no worker has this credential; enrol again")
        worker = self.workers[worker_id]
        self.check_right(worker)
        if digest == worker.next_credential:
            worker.past_credential, worker.past_is_taken_until = worker.credential, self._clock() + HANDOVER_S
            worker.credential, worker.made_at = digest, worker.next_made_at
            worker.expires_at, worker.next_credential = worker.made_at + self.credential_s, ""
            worker.intent = msgspec.structs.replace(worker.intent, rotate=False)
        if digest == worker.past_credential and worker.past_is_taken_until > self._clock():
            return worker
        if digest != worker.credential:
            worker.replays_seen += digest == worker.past_credential
            raise Refusal(ProblemCode.UNAUTHORIZED, f"this credential of {worker.name} was replaced or never used; enrol again")
        if worker.expires_at <= self._clock():
            raise Refusal(ProblemCode.EXPIRED, f"the credential of {worker.name} has expired; enrol again")
        return worker

    def issue_credential(self, worker: Worker, presented: str) -> str:
        """Return a new credential, which becomes *worker*'s at its first use."""
        if hash_token(presented) != worker.credential:
            raise Refusal(ProblemCode.BUSY, "this credential has been replaced; ask with the newer one")
        credential = self._make_credential(worker)
        worker.next_credential, worker.next_made_at = hash_token(credential), self._clock()
        return credential

    def credential_age_s(self, worker: Worker) -> float:
        return self._clock() - worker.made_at

    def check_right(self, worker: Worker) -> None:
        if worker.is_revoked:
            raise Refusal(ProblemCode.REVOKED, f"the worker {worker.name} was revoked; enrol it again if that was a mistake")
        if worker.is_suspended:
            raise Refusal(ProblemCode.SUSPENDED, f"the worker {worker.name} is suspended until an administrator resumes it")

    def suspend_worker(self, worker: Worker, *, is_suspended: bool = True) -> None:
        worker.is_suspended, worker.session_id = is_suspended, None
        self.changed.notify_all()

    def ask_to_restart(self, worker: Worker) -> None:
        worker.intent = msgspec.structs.replace(worker.intent, revision=worker.intent.revision + 1, restart=True)
        self.changed.notify_all()

    def ask_to_rotate(self, worker: Worker) -> None:
        worker.intent = msgspec.structs.replace(worker.intent, revision=worker.intent.revision + 1, rotate=True)
        self.changed.notify_all()

    def open_session(self, worker: Worker, asked: SessionRequest) -> list[Stop]:
        """Open a new session for *worker*; return the stops for jobs that it must not hold."""
        try:
            check_version(asked.protocol)
        except VersionMismatch as error:
            raise Refusal(ProblemCode.OUTDATED, f"{error}; update the worker") from None
        if worker.instance_id not in (None, asked.instance_id):
            worker.clones_seen += 1
            raise Refusal(
                ProblemCode.CLONED, f"another installation already works as {worker.name}; enrol this one under its own name"
            )
        if asked.boot_id != worker.boot_id:
            self._take_over(worker, asked.boot_id)
            worker.intent = msgspec.structs.replace(worker.intent, restart=False)
            worker.runtimes = []
        worker.instance_id, worker.session, worker.session_id = asked.instance_id, asked, str(uuid.uuid4())
        listed = {(entry.job_id, entry.epoch) for entry in asked.jobs}
        for job in self.leased_by(worker):
            # An offer that isn't listed never reached the worker's disk and can be offered again at once. A job that ran and
            # isn't listed is lost, unless a poll lists it soon.
            is_listed = (job.job_id, job.epoch) in listed
            if job.kind is JobKind.TRIGGER and job.state is JobState.RUNNING and not is_listed:
                job.move(JobEvent.HAND_BACK)
                continue
            job.is_missing = job.state is JobState.RUNNING and not is_listed
            if job.state is JobState.OFFERED and (job.job_id, job.epoch) not in listed:
                job.move(JobEvent.WITHDRAW)
        self._limit_jobs(worker, asked)
        self.changed.notify_all()
        return self.stops(worker, asked.jobs)

    def _take_over(self, worker: Worker, boot_id: str) -> None:
        """Detect a copy: if an earlier start sends requests after it was replaced, both run, and the later start is the copy."""
        if boot_id == worker.refused_boot_id:
            worker.clones_seen += 1
            raise Refusal(ProblemCode.CLONED, f"this is a copy of {worker.name}; enrol it under its own name")
        if boot_id == worker.previous_boot_id:
            worker.clones_seen += 1
            worker.refused_boot_id, worker.previous_boot_id = worker.boot_id, None
        else:
            worker.previous_boot_id = worker.boot_id
        worker.boot_id = boot_id

    def check_session(self, worker: Worker, session_id: str | None) -> SessionRequest:
        if session_id is None or session_id != worker.session_id or worker.session is None:
            raise Refusal(ProblemCode.SESSION_TAKEN, f"this is not the current session of {worker.name}; open a new one")
        return worker.session

    def jobs_left(self, worker: Worker) -> int | None:
        """Return how many more jobs *worker* may be offered; None: any number."""
        if worker.max_jobs is None:
            return None
        counts = (job for job in self.jobs.values() if job.worker_id == worker.worker_id and job.counts)
        return max(0, worker.max_jobs - sum(1 for _ in counts))

    def _limit_jobs(self, worker: Worker, asked: SessionRequest) -> None:
        worker.is_ephemeral = worker.is_ephemeral or asked.ephemeral
        if not worker.is_ephemeral:
            worker.max_jobs = asked.max_jobs
        elif asked.max_jobs is not None:
            worker.max_jobs = min(asked.max_jobs, worker.max_jobs or asked.max_jobs)

    def leave(self, worker: Worker) -> None:
        for job in self.leased_by(worker):
            if job.state is JobState.OFFERED:
                job.move(JobEvent.WITHDRAW)
        if self.leased_by(worker):
            raise Refusal(ProblemCode.SUPERSEDED, f"{worker.name} still holds jobs; drain it first")
        self.revoke_worker(worker)

    def revoke_worker(self, worker: Worker) -> None:
        worker.is_revoked = True
        self.changed.notify_all()

    def set_intent(self, worker: Worker, mode: IntentMode, *, slots: int | None, reason: str) -> None:
        worker.intent = Intent(mode=mode, revision=worker.intent.revision + 1, slots=slots, reason=reason)
        self.changed.notify_all()

    # Offers and leases

    def enqueue(self, job: Job) -> None:
        self.jobs[job.job_id] = job
        self.changed.notify_all()

    def leased_by(self, worker: Worker) -> list[Job]:
        return [job for job in self.jobs.values() if job.state.is_leased and job.worker_id == worker.worker_id]

    def offer(self, worker: Worker, session: SessionRequest, *, free_slots: int, free_triggers: int = 0) -> list[Offer]:
        """Offer *worker* the jobs that fit, by priority, then by age; a job that doesn't fit does not block later ones."""
        if worker.intent.mode is not IntentMode.SERVE or (worker.runtime and worker.runtime.trouble):
            return []
        allowed = session.slots if worker.intent.slots is None else min(session.slots, worker.intent.slots)
        leased = self.leased_by(worker)
        room = min(free_slots, allowed - sum(job.slots for job in leased if job.kind is not JobKind.TRIGGER))
        triggers = min(free_triggers, session.triggers - sum(job.kind is JobKind.TRIGGER for job in leased))
        left = self.jobs_left(worker)
        now = self._clock()
        offers: list[Offer] = []
        # `sorted` is stable and `jobs` keeps the order of arrival, so age needs no key.
        for job in sorted(self.jobs.values(), key=lambda job: -job.priority):
            is_trigger = job.kind is JobKind.TRIGGER
            fits = triggers > 0 if is_trigger else job.slots <= room
            if left is not None and len(offers) >= left:
                break
            if job.state is not JobState.QUEUED or job.queue not in worker.queues or job.not_before > now or not fits:
                continue
            if job.kind is not JobKind.TASK and job.kind.value not in session.capabilities:
                continue
            runtime = None
            if Capability.RUNTIMES.value in session.capabilities:
                runtime = self.runtimes.choose(job.queue, worker.runtimes)
                if runtime is None:
                    continue
            job.move(JobEvent.OFFER)
            job.epoch += 1
            job.runtime = runtime
            job.worker_id, job.deadline, job.log = worker.worker_id, now + self.offer_deadline_s, bytearray()
            room -= 0 if is_trigger else job.slots
            triggers -= is_trigger
            offers.append(self._as_offer(job, session))
        return offers

    def _as_offer(self, job: Job, session: SessionRequest) -> Offer:
        return Offer(
            job_id=job.job_id,
            epoch=job.epoch,
            kind=job.kind,
            queue=job.queue,
            slots=job.slots,
            deadline_s=self.offer_deadline_s,
            stop_after_s=self.stop_after_s,
            workload=msgspec.Raw(job.workload),
            tree=job.tree if Capability.BUNDLES.value in session.capabilities else None,
            runtime=job.runtime,
        )

    def runtimes_of(self, worker: Worker) -> Runtimes | None:
        """Return what *worker* should have; None: it takes no runtimes."""
        if worker.session is None or Capability.RUNTIMES.value not in worker.session.capabilities:
            return None
        return self.runtimes.of(worker.queues)

    def release_of(self, worker: Worker) -> WantedRelease | None:
        """Return the release that *worker* should run; None: there is no release, or it takes none."""
        takes = worker.session is not None and Capability.RELEASES.value in worker.session.capabilities
        return self.releases.newest if takes and not self.releases.is_withdrawn else None

    def withdraw(self, offers: Sequence[Offer]) -> None:
        """Withdraw offers whose reply could not be delivered."""
        for offer in offers:
            job = self.jobs[offer.job_id]
            if (job.state, job.epoch) == (JobState.OFFERED, offer.epoch):
                job.move(JobEvent.WITHDRAW)
        self.changed.notify_all()

    def renew(self, worker: Worker, listed: Sequence[HeldJob]) -> None:
        for entry in listed:
            job = self._held(worker, entry)
            if job is not None:
                job.is_missing = False
            if job is not None and job.state is JobState.OFFERED and entry.phase is JobPhase.PREPARING:
                job.deadline = self._clock() + self.offer_deadline_s

    def expire_offers(self) -> None:
        """Withdraw every offer whose deadline has passed; after too many expired offers, the job fails."""
        now = self._clock()
        for job in self.jobs.values():
            if job.state is JobState.OFFERED and job.deadline <= now:
                job.expired_offers += 1
                job.move(JobEvent.FAIL if job.expired_offers > MAX_REOFFERS else JobEvent.EXPIRE)
                job.not_before = now + self.redelivery_s * 2 ** (job.expired_offers - 1)

    def stops(self, worker: Worker, listed: Sequence[HeldJob]) -> list[Stop]:
        """Return a stop for each listed job that must not continue and isn't stopping already."""
        stops = []
        for entry in listed:
            if entry.phase in (JobPhase.STOPPING, JobPhase.ENDED):
                continue
            job = self._held(worker, entry)
            if job is None or (job.stop is None and not job.state.is_leased and job.state is not JobState.LOST):
                stops.append(Stop(job_id=entry.job_id, epoch=entry.epoch, reason=StopReason.SUPERSEDED))
            elif job.state is JobState.LOST:
                stops.append(Stop(job_id=entry.job_id, epoch=entry.epoch, reason=StopReason.LOST))
            elif job.stop is not None:
                stops.append(Stop(job_id=entry.job_id, epoch=entry.epoch, reason=job.stop))
        return stops

    def _held(self, worker: Worker, entry: HeldJob) -> Job | None:
        job = self.jobs.get(entry.job_id)
        if job is None or (job.worker_id, job.epoch) != (worker.worker_id, entry.epoch) or job.state is JobState.QUEUED:
            return None
        return job

    def job_of(self, worker: Worker, job_id: str, epoch: int) -> Job:
        """Return the job if *epoch* is its last lease and *worker* has or had that; the job may have ended."""
        job = self.jobs.get(job_id)
        if job is None or job.worker_id != worker.worker_id:
            raise Refusal(ProblemCode.NOT_FOUND, f"{worker.name} has no job {job_id[:64]}")
        if epoch != job.epoch or job.state is JobState.QUEUED:
            raise Refusal(ProblemCode.SUPERSEDED, f"job {job_id} has moved on: epoch {epoch} is over, {job.epoch} is the last")
        return job

    def leased_job_of(self, worker: Worker, job_id: str, epoch: int) -> Job:
        """As :meth:`job_of`, but only if the lease is not over."""
        job = self.job_of(worker, job_id, epoch)
        if not job.state.is_leased:
            raise Refusal(ProblemCode.SUPERSEDED, f"job {job_id} is {job.state.value}; its lease is over")
        return job

    def check_tree(self, worker: Worker, digest: str) -> None:
        """Return if an open job of *worker* runs the tree, or runs in it, or the worker should have it."""
        refs = [ref for job in self.leased_by(worker) for ref in (job.tree, job.runtime and job.runtime.tree)]
        listed = self.runtimes_of(worker)
        refs += [ref.tree for ref in listed.wanted] if listed else []
        refs += [wanted.tree] if (wanted := self.release_of(worker)) else []
        if not any(ref and ref.digest == digest for ref in refs):
            raise Refusal(ProblemCode.NOT_FOUND, f"no open job of {worker.name} runs such a tree")

    # Changes of a job

    def accept(self, job: Job) -> None:
        if job.state is JobState.OFFERED:
            job.move(JobEvent.ACCEPT)
            self.changed.notify_all()

    def decline(self, job: Job, reason: str) -> None:
        job.declines.append(reason)
        if job.kind is JobKind.TRIGGER and job.state is JobState.RUNNING:
            job.move(JobEvent.HAND_BACK)
        elif job.state is not JobState.OFFERED:
            raise Refusal(ProblemCode.SUPERSEDED, f"job {job.job_id} is {job.state.value}; only an offer can be declined")
        else:
            job.move(JobEvent.DECLINE)
            job.not_before = self._clock() + self.redelivery_s
        self.changed.notify_all()

    def take_event(self, job: Job, event: TriggerEvent) -> None:
        """Take the end of a trigger. A repetition changes nothing."""
        if job.kind is not JobKind.TRIGGER:
            raise Refusal(ProblemCode.INVALID, f"job {job.job_id} is not a trigger")
        if job.event is not None and job.event == event:
            return
        if not job.state.is_leased:
            raise Refusal(ProblemCode.SUPERSEDED, f"job {job.job_id} is {job.state.value}; its task does not wait for it")
        if job.state is JobState.OFFERED:
            job.move(JobEvent.ACCEPT)
        job.event = event
        job.move(JobEvent.SUCCEED)
        self.changed.notify_all()

    def append_chunk(self, worker: Worker, chunk: LogChunk) -> ChunkResult:
        """As :meth:`append_log` for one chunk of many; a refusal does not affect the others."""
        result = ChunkResult(job_id=chunk.job_id, epoch=chunk.epoch)
        try:
            job = self.job_of(worker, chunk.job_id, chunk.epoch)
            size = self.append_log(job, chunk.offset, chunk.text.encode())
        except Refusal as refusal:
            if refusal.problem.size is None:
                return msgspec.structs.replace(result, refused=str(refusal))
            size = refusal.problem.size
        return msgspec.structs.replace(result, size=size)

    def conclude(self, job: Job, report: Report) -> None:
        """Take the worker's report. A second report, or one about a job that central has ended, changes no state."""
        if job.state is JobState.LOST:
            job.late_report = report
            raise Refusal(ProblemCode.SUPERSEDED, f"job {job.job_id} was lost; its report is stored, but changes nothing")
        if job.report is None:
            if job.state is JobState.OFFERED and report.outcome is Outcome.SUCCEEDED:
                raise Refusal(ProblemCode.INVALID, f"job {job.job_id} can't have succeeded: it was never accepted")
            if job.state is JobState.OFFERED and report.outcome is Outcome.DIED:
                job.deadline = self._clock()  # nothing ran under this lease: it is offered again
                self.changed.notify_all()
                return
            if job.state.is_leased:
                job.move(JobEvent.SUCCEED if report.outcome is Outcome.SUCCEEDED else JobEvent.FAIL)
            job.report = report
            self.changed.notify_all()

    def append_log(self, job: Job, offset: int, text: bytes) -> int:
        """Append at exactly the current size, ignore a repetition; return the new size."""
        size = len(job.log)
        if offset == size:
            job.log += text
        elif offset + len(text) > size:
            raise Refusal(ProblemCode.LOG_OFFSET, f"central holds {size} bytes of this log; send what follows", size=size)
        return len(job.log)

    def append_worker_log(self, worker: Worker, *, stretch: str, offset: int, text: bytes) -> int:
        """As :meth:`append_log`; a new stretch begins at its offset."""
        if worker.worker_log_stretch[0] != stretch:
            if not text:
                return offset
            worker.worker_log_stretch = stretch, len(worker.worker_log) - offset
        size = len(worker.worker_log) - worker.worker_log_stretch[1]
        if offset == size:
            worker.worker_log += text
        elif offset + len(text) > size:
            raise Refusal(ProblemCode.LOG_OFFSET, f"central holds {size} bytes of this log; send what follows", size=size)
        return len(worker.worker_log) - worker.worker_log_stretch[1]

    def end(self, job: Job, reason: StopReason) -> None:
        """Revoke the job, as a user, the scheduler or the executor would; its worker receives a stop."""
        if not job.state.is_ended:
            job.stop = reason
            job.move(JobEvent.REVOKE)
            self.changed.notify_all()

    def lose_if_missing(self, job: Job) -> None:
        """Lose the job if its worker does not list it, as when its grace has passed."""
        if job.is_missing and job.state is JobState.RUNNING:
            self.lose(job)

    def lose(self, job: Job) -> None:
        """Declare the job lost, as if its worker had been silent for too long."""
        job.move(JobEvent.HAND_BACK if job.kind is JobKind.TRIGGER else JobEvent.LOSE)
        self.changed.notify_all()


def make_workload(overrides: dict[str, Any] | None = None) -> bytes:
    """Return a `TaskWorkload` for a made-up task; *overrides* replaces any of its top-level fields."""
    ti = {
        "id": str(uuid.uuid4()),
        "dag_version_id": str(uuid.uuid4()),
        "task_id": "a_task",
        "dag_id": "a_dag",
        "run_id": "manual__2026-01-01T00:00:00+00:00",
        "try_number": 1,
        "map_index": -1,
    }
    workload = {"ti": ti, "dag_rel_path": "a_dag.py", "bundle": {"name": "dags-folder", "version": None}}
    return json.dumps(workload | (overrides or {})).encode()


def make_trigger_workload(overrides: dict[str, Any] | None = None) -> bytes:
    """Return a `TriggerWorkload` for a made-up trigger; *overrides* replaces any of its top-level fields."""
    task = json.loads(make_workload())
    trigger = {**task, "classpath": "a_module.Trigger", "kwargs": {}}
    return json.dumps(trigger | (overrides or {})).encode()


def _well_formed(kind: TokenKind, token: str) -> str:
    try:
        return check_token(kind, token)
    except MalformedToken as error:
        raise Refusal(ProblemCode.UNAUTHORIZED, str(error)) from None
