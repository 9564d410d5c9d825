"""What a worker can still take: its slots and triggers, bounded by its session, its limit, and the jobs leased to it.

Read under the locks of the workers' rows (:mod:`.dispatch`).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from airflow_remote_protocol.messages import JobKind
from airflow_remote_protocol.states import JobState
from airflow_remote_protocol.version import Capability
from sqlalchemy import case, func, select
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

    def fits(self, job: Any) -> bool:
        return self.triggers > 0 if job.kind == JobKind.TRIGGER.value else self.slots > 0 and self.slots >= job.slots

    def take(self, job: Any) -> None:
        if job.kind == JobKind.TRIGGER.value:
            self.triggers -= 1
        else:
            self.slots = 0 if self.is_trial else self.slots - job.slots

    def free_for(self, job: Any) -> int:
        return self.triggers if job.kind == JobKind.TRIGGER.value else self.slots


def room_of(worker: Worker, claimant: Claimant, used: tuple[int, int], *, is_trying: bool) -> Room:
    """Return what a worker can take: its request, bounded by its session, its limit and the jobs leased to it."""
    slots, triggers = used
    bound = worker.slots if worker.slots_limit is None else min(worker.slots, worker.slots_limit)
    is_trial = worker.early_failures >= EARLY_FAILURES_LIMIT  # until a job has begun there
    can_wait = Capability.TRIGGER.value in (worker.capabilities or ())
    return Room(
        slots=0 if is_trial and is_trying else min(claimant.free_slots, bound - slots),
        triggers=min(claimant.free_triggers, worker.triggers - triggers) if can_wait else 0,
        is_trial=is_trial,
    )


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
