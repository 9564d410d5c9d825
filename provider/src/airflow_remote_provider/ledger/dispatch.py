"""Offers queued jobs to workers. The only place that decides which worker gets which job.

Capacity and queue rights are read under the locks of the workers' rows, so any number of API processes can dispatch at once. Each
UPDATE also asserts the state and epoch that were read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import msgspec
from airflow_remote_protocol.messages import IntentMode, JobKind, RuntimeRef, TreeRef
from airflow_remote_protocol.states import JobEvent, JobState, advance
from airflow_remote_protocol.version import Capability
from sqlalchemy import ColumnElement, and_, case, func, or_, select, update
from sqlalchemy.orm import Session

from airflow_remote_provider.compat import database_clock, database_now
from airflow_remote_provider.definitions.needs import suits
from airflow_remote_provider.ledger import capacity, code
from airflow_remote_provider.ledger.assignments import Plan, host_of, usable
from airflow_remote_provider.ledger.capacity import EARLY_FAILURES_LIMIT, IS_TRIGGER, Claimant, Room
from airflow_remote_provider.models import Job, Worker

NO_PLAN = Plan()
BATCH = 200
"""Most jobs that one claim reads; bounds the transaction, not the throughput (the dispatcher claims again)."""


@dataclass(frozen=True)
class Demand:
    """Waiting jobs of one queue and team with the same needs."""

    queue: str
    team: str | None
    jobs: int
    smallest: int
    """Slots of the smallest of them."""
    labels: str | None = None
    bundle: str | None = None
    triggers: bool = False
    """Whether they are triggers, which take no slots but have a limit of their own on each worker."""


def demand(session: Session) -> list[Demand]:
    """Return the jobs that can be offered now, grouped. One statement over an index. The dispatcher calls it before a claim."""
    now = database_clock(session)
    query = (
        select(
            Job.queue,
            Job.team,
            func.count().label("jobs"),
            func.min(Job.slots).label("smallest"),
            Job.labels,
            Job.bundle,
            IS_TRIGGER.label("triggers"),
        )
        .where(_can_be_offered(now))
        .group_by(Job.queue, Job.team, Job.labels, Job.bundle, IS_TRIGGER)
    )
    return [
        Demand(
            queue=row.queue,
            team=row.team,
            jobs=row.jobs,
            smallest=row.smallest,
            labels=row.labels,
            bundle=row.bundle,
            triggers=bool(row.triggers),
        )
        for row in session.execute(query)
    ]


def _can_be_offered(now: Any) -> ColumnElement[bool]:
    """Return the condition for queued jobs that do not wait for a time or for code."""
    return and_(
        Job.state == JobState.QUEUED.value,
        or_(Job.not_before.is_(None), Job.not_before <= now),
        or_(Job.code_waits.is_(False), Job.code_patience_at <= now),
    )


@dataclass(frozen=True)
class Claimed:
    """One job that has been offered to one worker."""

    job_id: str
    epoch: int
    worker_id: str
    kind: str
    queue: str
    slots: int
    workload: str
    lost_after_s: float
    tree: TreeRef | None = None
    """The code that it runs; None: its worker must have it."""
    runtime: RuntimeRef | None = None
    """The runtime from central that it runs in; None: its worker's site has the runtime."""


def claim(
    session: Session,
    claimants: Sequence[Claimant],
    wanted: Sequence[Demand],
    *,
    deadline: timedelta,
    patience: timedelta,
    plan: Plan = NO_PLAN,
) -> list[Claimed]:
    """Offer queued jobs to *claimants*: highest priority first, then oldest; each to the eligible worker with most free slots.

    A job whose code is not published yet waits for it, or for the end of its *patience*. A worker that takes its runtimes from
    central gets jobs only of queues whose runtime, by *plan*, it has ready.

    *wanted* is the result of :func:`demand`; jobs with other needs that came since are left to the next call. A job that fits no
    claimant is skipped and blocks no others. A claimant that is gone, paused, or under another session gets nothing.
    """
    asked = {claimant.worker_id: claimant for claimant in claimants}
    workers = _lock_workers(session, sorted(asked))
    now = database_now(session)
    used = capacity.used(session, [worker.id for worker in workers])
    trying = capacity.trying(session, [worker.id for worker in workers if worker.early_failures >= EARLY_FAILURES_LIMIT], now)
    left = capacity.jobs_left(session, workers)
    free: dict[str, Room] = {}
    eligible: dict[tuple[str, str | None], list[Worker]] = {}
    runtimes: dict[tuple[str, str], RuntimeRef | None] = {}
    """By worker and queue."""
    for worker in workers:
        claimant = asked[worker.id]
        if worker.revoked_at is not None or worker.intent != IntentMode.SERVE.value or worker.session_id != claimant.session_id:
            continue
        host = host_of(worker)
        if host is None and worker.unfit:
            continue
        free[worker.id] = room = capacity.room_of(
            worker,
            claimant,
            used.get(worker.id, (0, 0)),
            is_trying=worker.id in trying,
            jobs_left=left.get(worker.id),
        )
        if room.slots > 0 or room.triggers > 0:
            for queue in worker.queues:
                runtime = None if host is None else usable(plan, host, queue)
                if host is None or runtime is not None:
                    eligible.setdefault((queue, worker.team), []).append(worker)
                    runtimes[worker.id, queue] = runtime
    if not eligible:
        return []

    able = {worker.id: {JobKind.TASK.value, *(worker.capabilities or ())} for worker in workers}
    candidates = _candidates(session, wanted, eligible=eligible, free=free, now=now)
    chosen = _choose_code(session, candidates, now=now, patience=patience)
    wins: dict[tuple[str, int, str | None, RuntimeRef | None], list[Any]] = {}
    for job in candidates:
        if job.id not in chosen:
            continue
        able_ones = (worker for worker in eligible.get((job.queue, job.team), ()) if job.kind in able[worker.id])
        fits = [worker for worker in able_ones if free[worker.id].fits(job) and _suits(worker, job)]
        if fits:
            winner = max(fits, key=lambda worker: free[worker.id].free_for(job))
            free[winner.id].take(job)
            tree = chosen[job.id] if Capability.BUNDLES.value in able[winner.id] else None
            wins.setdefault((winner.id, job.epoch, tree, runtimes[winner.id, job.queue]), []).append(job)
    by_id = {worker.id: worker for worker in workers}
    pinned = code.pin(
        session,
        {tree for _, _, tree, _ in wins if tree is not None},
        runtimes={runtime.tree.digest for _, _, _, runtime in wins if runtime is not None},
    )
    claimed: list[Claimed] = []
    for (worker_id, epoch, tree, runtime), jobs in wins.items():
        if not {tree, runtime and runtime.tree.digest} - {None} <= pinned.keys():
            continue  # one of them was deleted at this moment, and the next claim chooses another one
        ref = None if tree is None else pinned[tree]
        offer = partial(_offer, session, by_id[worker_id], jobs, epoch=epoch, tree=ref, runtime=runtime)
        claimed += offer(now=now, deadline=deadline)
    place = {job.id: number for number, job in enumerate(candidates)}
    return sorted(claimed, key=lambda job: place[job.job_id])


def _choose_code(session: Session, candidates: Sequence[Any], *, now: datetime, patience: timedelta) -> dict[str, str | None]:
    """Return the digest of the tree of each job that can be offered now; None: its worker must have the code.

    A job that was offered before keeps its tree. A job for which no tree will do waits from now on, and is not in the result.
    """
    chosen: dict[str, str | None] = {job.id: job.tree for job in candidates}
    needs = {job.id: need for job in candidates if job.tree is None and (need := code.need_of(job)) is not None}
    choices = dict(zip(needs, code.choose(session, list(needs.values())), strict=True))
    waiting: list[str] = []
    for job in candidates:
        choice = choices.get(job.id, code.SITE)
        if choice.waits_for and not (choice.newest is not None and _is_impatient(job, now)):
            waiting.append(job.id)
            del chosen[job.id]
        elif job.tree is None:
            chosen[job.id] = choice.tree or choice.newest
    if waiting:
        again = now + patience
        until = case(
            (or_(Job.code_patience_at.is_(None), Job.code_patience_at < now - patience), again), else_=Job.code_patience_at
        )
        session.execute(
            update(Job)
            .where(Job.id.in_(waiting))
            .values(code_waits=True, code_patience_at=case((Job.bundle_version.is_(None), until), else_=None))
            .execution_options(synchronize_session=False)
        )
    return chosen


def _is_impatient(job: Any, now: datetime) -> bool:
    """Return whether the job has waited for newer code as long as it may."""
    return bool(job.code_patience_at is not None and job.code_patience_at <= now)


def _offer(
    session: Session,
    worker: Worker,
    jobs: Sequence[Any],
    *,
    epoch: int,
    tree: TreeRef | None,
    runtime: RuntimeRef | None,
    now: datetime,
    deadline: timedelta,
) -> list[Claimed]:
    """Offer *jobs*, all read as queued at *epoch*, to *worker* with one statement. Return those that were still in that state."""
    ids = [job.id for job in jobs]
    changed = session.execute(
        update(Job)
        .where(Job.id.in_(ids), Job.state == JobState.QUEUED.value, Job.epoch == epoch)
        .values(
            state=advance(JobState.QUEUED, JobEvent.OFFER).value,
            epoch=epoch + 1,
            worker_id=worker.id,
            worker_name=worker.name,
            offers=Job.offers + 1,
            offered_at=now,
            deadline_at=now + deadline,
            not_before=None,
            code_waits=False,
            tree=None if tree is None else tree.digest,
            runtime=None if runtime is None else runtime.tree.digest,
            release=(worker.facts or {}).get("version", "")[:100],
        )
        .execution_options(synchronize_session=False)
    )
    if changed.rowcount != len(ids):  # type: ignore[attr-defined]
        # No other process can have made this offer: that takes the worker's lock.
        ours = select(Job.id).where(Job.id.in_(ids), Job.epoch == epoch + 1, Job.worker_id == worker.id)
        offered = set(session.scalars(ours))
        jobs = [job for job in jobs if job.id in offered]
    return [
        Claimed(
            job_id=job.id,
            epoch=epoch + 1,
            worker_id=worker.id,
            kind=job.kind,
            queue=job.queue,
            slots=job.slots,
            workload=job.workload,
            lost_after_s=job.lost_after_s,
            tree=_noted(job, tree),
            runtime=runtime,
        )
        for job in jobs
    ]


def _noted(job: Any, tree: TreeRef | None) -> TreeRef | None:
    """Return *tree*, with a line for the log of a job that does not wait for newer code any more."""
    if tree is None or not job.code_waits:
        return tree
    return msgspec.structs.replace(tree, note=code.IMPATIENT)


def _lock_workers(session: Session, worker_ids: list[str]) -> Sequence[Worker]:
    """Lock the workers' rows in id order."""
    return session.scalars(select(Worker).where(Worker.id.in_(worker_ids)).order_by(Worker.id).with_for_update()).all()


def _suits(worker: Worker, job: Any) -> bool:
    """Return whether the worker meets the needs of *job*, which may also be a :class:`Demand`."""
    return suits(worker.labels or {}, worker.bundles, needed=job.labels, bundle=job.bundle)


@dataclass(frozen=True)
class Fit:
    """The most that queued jobs of several queues may need."""

    team: str | None
    triggers: bool
    slots: int
    labels: str | None
    bundle: tuple[str | None] | None
    """None: any bundle."""


def _candidates(
    session: Session,
    wanted: Sequence[Demand],
    *,
    eligible: dict[tuple[str, str | None], list[Worker]],
    free: dict[str, Room],
    now: datetime,
) -> Sequence[Any]:
    """Return queued jobs that fit at least one worker, in order. Other jobs aren't read, so they can't fill the batch."""
    by_fit: dict[Fit, set[str]] = {}
    needs: dict[tuple[str, str | None], list[Demand]] = {}
    for need in wanted:
        # MySQL treats names as equal that differ only in trailing spaces; `claim` compares the queue again.
        needs.setdefault((need.queue.rstrip(" "), need.team), []).append(need)
    for (queue, team), some in eligible.items():
        for need in needs.get((queue.rstrip(" "), team), ()):
            workers = [worker for worker in some if _suits(worker, need) and _has_room(free[worker.id], need)]
            if workers:
                bundle = None if all(worker.bundles is None for worker in workers) else (need.bundle,)
                slots = 0 if need.triggers else max(free[worker.id].slots for worker in workers)
                fit = Fit(team=team, triggers=need.triggers, slots=slots, labels=need.labels, bundle=bundle)
                by_fit.setdefault(fit, set()).add(queue)
    if not by_fit:
        return []
    fits = or_(*(_wanted(fit, queues) for fit, queues in by_fit.items()))
    query = (
        select(
            Job.id,
            Job.epoch,
            Job.kind,
            Job.queue,
            Job.team,
            Job.slots,
            Job.labels,
            Job.bundle,
            Job.workload,
            Job.lost_after_s,
            Job.bundle_version,
            Job.dag_version,
            Job.dag_file,
            Job.tree,
            Job.code_waits,
            Job.code_patience_at,
        )
        .where(_can_be_offered(now), fits)
        .order_by(Job.priority.desc(), Job.queued_at, Job.id)
        .limit(min(BATCH, sum(max(room.slots, 0) + max(room.triggers, 0) for room in free.values())))
        .with_for_update(skip_locked=True)
    )
    return session.execute(query).all()


def _has_room(room: Room, need: Demand) -> bool:
    return room.triggers > 0 if need.triggers else room.slots > 0


def _wanted(fit: Fit, queues: set[str]) -> ColumnElement[bool]:
    """Return the condition for jobs of *queues* that need no more than *fit*."""
    kind = Job.kind == JobKind.TRIGGER.value if fit.triggers else Job.kind != JobKind.TRIGGER.value
    conditions = [
        Job.queue.in_(sorted(queues)),
        kind,
        Job.slots <= fit.slots,
        _is(Job.team, fit.team),
        _is(Job.labels, fit.labels),
    ]
    return and_(*conditions, *(_is(Job.bundle, one) for one in fit.bundle or ()))


def _is(column: Any, value: str | None) -> ColumnElement[bool]:
    return column.is_(None) if value is None else column == value  # type: ignore[no-any-return]
