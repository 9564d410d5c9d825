"""Explains why a job waits, in one sentence that says what to do about it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from airflow_remote_protocol.messages import JobKind
from airflow_remote_protocol.presence import Presence
from airflow_remote_protocol.states import JobState
from sqlalchemy import and_, func, or_, select
from sqlalchemy.orm import Session

from airflow_remote_provider.compat import database_now
from airflow_remote_provider.definitions.needs import encode_labels, suits
from airflow_remote_provider.ledger import bundles, held_runtimes, runtimes
from airflow_remote_provider.ledger.bundles import BundleState
from airflow_remote_provider.ledger.views.jobs import JobRow, show_job
from airflow_remote_provider.ledger.views.scope import EVERYTHING, Scope
from airflow_remote_provider.ledger.views.serving import ServingWorker, list_serving
from airflow_remote_provider.models import Job

MOST_NAMES = 3
ESTIMATED_FROM = timedelta(hours=6)
"""The duration of jobs is estimated from the jobs that ended within this time."""
MOST_ENDED = 200


def why_waiting(session: Session, job_id: str, *, silent_after: timedelta, scope: Scope = EVERYTHING) -> str:
    """Return why the job has not begun, or its state if it has begun.

    Raises:
        NotFound: there is no such job within *scope*.
    """
    job = show_job(session, job_id, scope=scope)
    if JobState(job.state) is not JobState.QUEUED:
        return _describe_state(job, database_now(session))
    serving = [one for one in list_serving(session, silent_after=silent_after, queue=job.queue) if scope.includes_team(one.team)]
    serving = _with_runtimes(session, serving, job.queue)
    now = database_now(session)
    next_free = None if any(server.free_slots for server in serving) else _next_free(session, serving, now)
    published = bundles.find_state(session, job.bundle) if job.code_waits and job.bundle else None
    return explain(job, serving, before=_before(session, job, now), now=now, next_free=next_free, published=published)


def _with_runtimes(session: Session, serving: list[ServingWorker], queue: str) -> list[ServingWorker]:
    """Return the workers, those that take runtimes from central with the reason why they have none for this queue."""
    if all(server.host is None for server in serving):
        return serving
    plan = runtimes.load_plan(session)
    return [
        server
        if server.host is None
        else replace(server, unfit=held_runtimes.explain_queue(plan, server.host, server.held, queue))
        for server in serving
    ]


def _describe_state(job: JobRow, now: datetime) -> str:
    state = JobState(job.state)
    if state is JobState.OFFERED:
        detail = f" ({job.detail})" if job.detail else ""
        return f"It was offered to {job.worker} {_age(job.offered_at, now)} ago; the worker prepares it{detail}."
    if state is JobState.RUNNING:
        return f"It has been running on {job.worker} for {_age(job.accepted_at, now)}."
    return f"It has ended: {state.value}{', ' + job.reason if job.reason else ''}."


def explain(
    job: JobRow,
    serving: Sequence[ServingWorker],
    *,
    before: int,
    now: datetime,
    next_free: timedelta | None = None,
    published: BundleState | None = None,
) -> str:
    """Return why this queued job waits.

    *serving* are the workers that serve its queue, *before* is the number of jobs of the queue that go first. *next_free* is the
    estimated time until one of their slots is free, if all are in use; None: unknown. *published* is what is known of its bundle;
    None: nothing.
    """
    if job.not_before is not None and job.not_before > now:
        return f"{_tried(job)}; it is offered again in {_seconds(job.not_before - now)}."
    if job.code_waits and not (job.code_patience_at is not None and job.code_patience_at <= now):
        return _code_text(job, published, now)
    if not serving:
        return (
            f"No worker serves the queue {job.queue!r}. Enrol a worker for it (airflow remote enrol create --queues "
            f"{job.queue}), or add it to the queues of an existing worker: airflow remote workers queues NAME …,{job.queue}"
        )
    left = list(serving)
    for narrow, complaint in _needs(job):
        fits = [server for server in left if narrow(server)]
        if not fits:
            return complaint(left)
        left = fits
    if job.kind == JobKind.TRIGGER.value:
        if all(server.used_triggers >= server.triggers for server in left):
            return (
                f"{_workers(left)} host as many triggers as they can ({sum(server.triggers for server in left)}); "
                "raise `triggers` in the settings of a worker, or add a worker."
            )
    elif job.slots > max(server.free_slots for server in left):
        used, slots = sum(server.used_slots for server in left), sum(server.slots for server in left)
        if all(server.free_slots == 0 for server in left):
            return f"All {slots} slots of {_workers(left)} are in use{_estimated(next_free)}."
        return f"It needs {job.slots} slots on one worker; {used} of the {slots} slots of {_workers(left)} are in use."
    if before:
        return f"{before} job(s) of the queue {job.queue!r} go first, with higher priority or older. {_workers(left)} serve it."
    return f"It will be offered to one of {_workers(left)} in a moment."


def _code_text(job: JobRow, published: BundleState | None, now: datetime) -> str:
    """Return which code the job waits for, who should publish it, and until when the job waits."""
    what = f"version {job.bundle_version}" if job.bundle_version else "the newest state"
    text = f"It waits until {what} of the Dag bundle {job.bundle!r} is published"
    if job.code_patience_at is not None:
        text += f", for {_seconds(job.code_patience_at - now)} at most"
    if published is None or published.scanned_at is None:
        text += ". It was never published"
    else:
        text += f". {published.publisher or 'Its publisher'} published it last {_age(published.scanned_at, now)} ago"
    if published is not None and published.trouble:
        text += f" and has this trouble: {published.trouble}"
    return f"{text}. To publish it where its files are: airflow remote publish {job.bundle}"


Complaint = Callable[[Sequence[ServingWorker]], str]


def _needs(job: JobRow) -> list[tuple[Callable[[ServingWorker], bool], Complaint]]:
    """Return the conditions on a worker to get *job* now, each with the text for the case that no worker meets it.

    They are in the order in which a user would check them.
    """
    labels = ", ".join(f"{key}={value}" for key, value in sorted(job.labels.items()))
    wanted = encode_labels(job.labels)
    return [
        (
            lambda server: server.team == job.team,
            lambda some: f"{_workers(some)} of the queue {job.queue!r} are not of the job's team ({job.team or 'none'}).",
        ),
        (
            lambda server: suits(server.labels, None, needed=wanted, bundle=None),
            lambda some: (
                f"No worker of the queue {job.queue!r} has the labels {labels}; "
                f"give them to one: airflow remote workers labels NAME {labels.replace(', ', ',')}"
            ),
        ),
        (
            lambda server: suits({}, server.bundles, needed=None, bundle=job.bundle),
            lambda some: (
                f"None of {_workers(some)} is allowed to run jobs of the bundle {job.bundle!r}; allow it for one: "
                "airflow remote workers bundles NAME …"
            ),
        ),
        (
            lambda server: job.kind in server.kinds,
            lambda some: f"None of {_workers(some)} can run a {job.kind}; update them, or check their settings.",
        ),
        (
            lambda server: server.presence == Presence.ONLINE,
            lambda some: f"{_workers(some)} of the queue {job.queue!r} are not online; last contact: {_last_contact(some)}.",
        ),
        (
            lambda server: not server.is_suspended,
            lambda some: f"{_workers(some)} are suspended; lift that with airflow remote workers unsuspend NAME.",
        ),
        (
            lambda server: not server.unfit,
            _unfit_text,
        ),
        (
            lambda server: server.takes_jobs,
            lambda some: (
                f"The workers of the queue {job.queue!r} take no jobs: {'; '.join(map(_intent_text, some[:MOST_NAMES]))}."
            ),
        ),
        (
            lambda server: server.slots >= job.slots,
            lambda some: f"It needs {job.slots} slots; the largest of {_workers(some)} has {max(s.slots for s in some)}.",
        ),
    ]


def _before(session: Session, job: JobRow, now: datetime) -> int:
    """Return how many queued jobs of the same queue and team go first, without those that are only offered later."""
    earlier = or_(
        Job.priority > job.priority,
        and_(Job.priority == job.priority, Job.queued_at < job.queued_at),
    )
    rivals = and_(
        Job.state == JobState.QUEUED.value,
        Job.queue == job.queue,
        Job.kind == JobKind.TRIGGER.value if job.kind == JobKind.TRIGGER.value else Job.kind != JobKind.TRIGGER.value,
        Job.team.is_(None) if job.team is None else Job.team == job.team,
        or_(Job.not_before.is_(None), Job.not_before <= now),
        or_(Job.code_waits.is_(False), Job.code_patience_at <= now),
    )
    return session.scalar(select(func.count()).select_from(Job).where(rivals, earlier)) or 0


def _next_free(session: Session, serving: Sequence[ServingWorker], now: datetime) -> timedelta | None:
    """Return the time until the oldest running job of these workers ends, if it takes the median time of their last jobs."""
    names = [server.name for server in serving]
    takes_slots = Job.kind != JobKind.TRIGGER.value
    ended = select(Job.accepted_at, Job.ended_at).where(
        Job.ended_at >= now - ESTIMATED_FROM, Job.accepted_at.is_not(None), Job.worker_name.in_(names), takes_slots
    )
    last = session.execute(ended.order_by(Job.ended_at.desc()).limit(MOST_ENDED))
    took: list[timedelta] = sorted(
        row.ended_at - row.accepted_at for row in last if row.accepted_at is not None and row.ended_at is not None
    )
    running = select(func.min(Job.accepted_at)).where(
        Job.state == JobState.RUNNING.value, Job.worker_name.in_(names), takes_slots
    )
    oldest = session.scalar(running)
    if not took or oldest is None:
        return None
    return max(timedelta(), oldest + took[len(took) // 2] - now)


def _estimated(next_free: timedelta | None) -> str:
    if next_free is None:
        return ""
    return f"; the next may be free in {_seconds(next_free)}" if next_free else "; the next may be free at any moment"


def _tried(job: JobRow) -> str:
    if job.reason:
        return f"It was {job.reason}"
    return f"It was offered {job.offers} time(s), last to {job.worker}, and not accepted in time"


def _workers(some: Sequence[ServingWorker]) -> str:
    names = ", ".join(server.name for server in some[:MOST_NAMES])
    return f"{len(some)} worker(s) ({names}{', …' if len(some) > MOST_NAMES else ''})"


def _intent_text(server: ServingWorker) -> str:
    reason = f": {json.dumps(server.intent_reason, ensure_ascii=False)}" if server.intent_reason else ""
    return f"{server.name} is set to {server.intent} by {server.intent_by or 'an unknown user'}{reason}"


def _unfit_text(some: Sequence[ServingWorker]) -> str:
    reasons = "; ".join(map(_unfit, some[:MOST_NAMES]))
    if all(server.host is None for server in some):
        return f"The runtimes of {_workers(some)} can't host tasks: {reasons}."
    return f"No runtime for it is ready at {_workers(some)}: {reasons}."


def _unfit(server: ServingWorker) -> str:
    return f"{server.name}: {server.unfit}"


def _last_contact(some: Sequence[ServingWorker]) -> str:
    latest = max((server.last_seen_at for server in some if server.last_seen_at is not None), default=None)
    return "never" if latest is None else f"{latest:%Y-%m-%d %H:%M} UTC"


def _age(since: datetime | None, now: datetime) -> str:
    return "a moment" if since is None else _seconds(now - since)


def _seconds(span: timedelta) -> str:
    return f"{max(0, round(span.total_seconds()))} s"
