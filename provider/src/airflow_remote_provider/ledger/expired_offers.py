"""Offers that no worker accepted in time: they are made again, or fail after too many attempts."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from airflow_remote_protocol.messages import JobKind
from airflow_remote_protocol.states import JobEvent, JobState, advance
from sqlalchemy import select
from sqlalchemy.orm import Session

from airflow_remote_provider.compat import database_now
from airflow_remote_provider.ledger import deferrals
from airflow_remote_provider.ledger.wakeup import Topic, wake
from airflow_remote_provider.models import Job


@dataclass(frozen=True)
class OfferRules:
    """How often, and with which delay, an offer is made again."""

    attempts: int
    delay: timedelta


def expire_offers(session: Session, rules: OfferRules) -> int:
    """Queue offers again whose deadline has passed, with a longer delay each time; fail jobs that were offered too often.

    Return how many offers expired.
    """
    now = database_now(session)
    query = (
        select(Job)
        .where(Job.state == JobState.OFFERED.value, Job.deadline_at < now)
        .order_by(Job.id)
        .with_for_update(skip_locked=True)
    )
    expired = session.scalars(query).all()
    for job in expired:
        job.deadline_at = None
        if job.offers >= rules.attempts:
            why = (
                f"offered {job.offers} times and never accepted, last by worker {job.worker_name}; "
                "see that worker's own log, or send the task to another queue"
            )
            if job.kind == JobKind.TRIGGER.value:
                deferrals.fail(session, job, why)
                continue
            job.state = advance(JobState.OFFERED, JobEvent.FAIL).value
            job.ended_at = now
            job.reason = why
            continue
        job.state = advance(JobState.OFFERED, JobEvent.EXPIRE).value
        job.not_before = now + rules.delay * job.offers
        job.reason = f"worker {job.worker_name} did not accept the offer in time"
    if expired:
        wake(session, Topic.QUEUED)
    return len(expired)
