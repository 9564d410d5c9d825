"""What a worker can still take: its slots and triggers, bounded by its session, its limit, and the jobs leased to it.

Read under the locks of the workers' rows (:mod:`.dispatch`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from airflow_remote_protocol.messages import JobKind
from airflow_remote_protocol.states import JobState
from airflow_remote_protocol.version import Capability
from sqlalchemy import case, func, or_, select
from sqlalchemy.orm import Session

from airflow_remote_provider.models import Job, Worker

EARLY_FAILURES_LIMIT = 3
"""After so many jobs in a row that failed before their own code began, a worker counts as broken."""
TRIAL = timedelta(minutes=10)
"""How long a job that was offered to such a worker keeps further jobs away; the trial ends when the job begins."""

IS_TRIGGER = case((Job.kind == JobKind.TRIGGER.value, 1), else_=0)


@dataclass(frozen=True)
class Claimant:
    """A parked poll: its worker and session, and how many slots and triggers the worker can take now."""

    worker_id: str
    session_id: str
    free_slots: int
    free_triggers: int = 0


@dataclass
class Room:
    """What one worker can still take in this claim."""

    slots: int
    triggers: int
    is_trial: bool = False
    """Takes one job, whatever its size."""
    jobs: int | None = None
    """How many jobs of any kind; None: any number."""

    def fits(self, job: Any) -> bool:
        if self.jobs is not None and self.jobs < 1:
            return False
        return self.triggers > 0 if job.kind == JobKind.TRIGGER.value else self.slots > 0 and self.slots >= job.slots

    def take(self, job: Any) -> None:
        if self.jobs is not None:
            self.jobs -= 1
        if job.kind == JobKind.TRIGGER.value:
            self.triggers -= 1
        else:
            self.slots = 0 if self.is_trial else self.slots - job.slots

    def free_for(self, job: Any) -> int:
        return self.triggers if job.kind == JobKind.TRIGGER.value else self.slots


def room_of(worker: Worker, claimant: Claimant, used: tuple[int, int], *, is_trying: bool, jobs_left: int | None = None) -> Room:
    """Return what a worker can take: its request, bounded by its session, its limits and the jobs leased to it."""
    if jobs_left is not None and jobs_left < 1:
        return Room(slots=0, triggers=0, jobs=0)
    slots, triggers = used
    bound = worker.slots if worker.slots_limit is None else min(worker.slots, worker.slots_limit)
    is_trial = worker.early_failures >= EARLY_FAILURES_LIMIT  # until a job has begun there
    can_wait = Capability.TRIGGER.value in (worker.capabilities or ())
    return Room(
        slots=0 if is_trial and is_trying else min(claimant.free_slots, bound - slots),
        triggers=min(claimant.free_triggers, worker.triggers - triggers) if can_wait else 0,
        is_trial=is_trial,
        jobs=jobs_left,
    )


def jobs_left(session: Session, workers: Sequence[Worker]) -> dict[str, int]:
    """Return how many more jobs may be offered to each of *workers* that has a limit of jobs. One statement if one has.

    A job counts that is offered to the worker, or that it has accepted or reported. An offer that it declined, or that expired,
    was withdrawn or revoked, does not: the worker gets another one for it.
    """
    limited = {worker.id: worker.jobs_limit for worker in workers if worker.jobs_limit is not None}
    if not limited:
        return {}
    is_taken = or_(Job.state == JobState.OFFERED.value, Job.accepted_at.is_not(None), Job.outcome.is_not(None))
    query = (
        select(Job.worker_id, func.count().label("jobs"))
        .join(Worker, Worker.id == Job.worker_id)
        .where(Job.worker_id.in_(limited), Job.offered_at >= Worker.jobs_since, Job.state != JobState.QUEUED.value, is_taken)
        .group_by(Job.worker_id)
    )
    taken = {row.worker_id: row.jobs for row in session.execute(query)}
    return {worker_id: max(0, limit - taken.get(worker_id, 0)) for worker_id, limit in limited.items()}


def trying(session: Session, worker_ids: list[str], now: datetime) -> set[str]:
    """Return which of these workers hold a job that was offered within :data:`TRIAL`."""
    if not worker_ids:
        return set()
    leased = [state.value for state in JobState if state.is_leased]
    query = select(Job.worker_id).where(
        Job.worker_id.in_(worker_ids), Job.state.in_(leased), Job.kind != JobKind.TRIGGER.value, Job.offered_at > now - TRIAL
    )
    return set(session.scalars(query.distinct()))


def used(session: Session, worker_ids: list[str]) -> dict[str, tuple[int, int]]:
    """Return how many slots and how many triggers each worker has leased."""
    leased = [state.value for state in JobState if state.is_leased]
    query = (
        select(Job.worker_id, func.sum(Job.slots).label("slots"), func.sum(IS_TRIGGER).label("triggers"))
        .where(Job.worker_id.in_(worker_ids), Job.state.in_(leased))
        .group_by(Job.worker_id)
    )
    return {row.worker_id: (int(row.slots), int(row.triggers)) for row in session.execute(query)}
