"""Rollouts that need no command: first to some workers, and to all when these have the runtime ready.

They are of builds that follow central's versions. A command of a user ends the stages: then the user decides.
"""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from airflow_remote_provider.compat import database_now
from airflow_remote_provider.definitions.needs import pairs_of
from airflow_remote_provider.ledger import rollouts, runtimes
from airflow_remote_provider.ledger.assignments import Host, Plan, choose, host_of
from airflow_remote_provider.models import RuntimeRow, Worker, WorkerContact

FOLLOW = "follow"
"""Who built and rolled out, in `updated_by` of a runtime whose rollout has stages."""
FIRST_PERCENT = 10
"""The share of the workers that get a build first."""


def begin(session: Session, name: str, *, adds_only: bool) -> bool:
    """Roll out a build that :func:`.runtimes.add` has just added; return whether it is rolled out.

    It is not if a user's build, or a halted rollout, waits for a user: this one would take those along.
    With *adds_only*, the build changes nothing for workers of other platforms, and keeps the share of the rollout.
    """
    row = runtimes.must_lock(session, name)
    if row.serial == row.built:
        return True  # the first one
    if row.serial != row.built - 1 or (adds_only and row.halted):
        return False
    percent, labels = (row.percent, row.labels) if adds_only else (FIRST_PERCENT, None)
    rollouts.roll(
        session, rollouts.of_runtime(name), by=FOLLOW, percent=percent, labels=dict(pairs_of(labels)) if labels else None
    )
    return True


def begin_left(session: Session) -> list[str]:
    """Roll out what was built and not rolled out because the process ended between the two; return the names."""
    query = select(RuntimeRow.name).where(
        RuntimeRow.updated_by == FOLLOW, RuntimeRow.serial == RuntimeRow.built - 1, RuntimeRow.halted == ""
    )
    return [name for name in session.scalars(query.order_by(RuntimeRow.name)) if begin(session, name, adds_only=False)]


def widen(session: Session, *, silent_after: timedelta) -> list[str]:
    """Roll out to all workers what the first ones have ready; return the names of these runtimes.

    Workers without a contact since *silent_after* don't count, so that one that is switched off holds nobody up.
    """
    query = select(RuntimeRow.name).where(
        RuntimeRow.updated_by == FOLLOW,
        RuntimeRow.serial == RuntimeRow.built,
        RuntimeRow.percent < 100,
        RuntimeRow.labels.is_(None),
        RuntimeRow.halted == "",
    )
    names = list(session.scalars(query.order_by(RuntimeRow.name)))
    if not names:
        return []
    plan, hosts = runtimes.load_plan(session), _active_hosts(session, silent_after)
    done = [name for name in names if all(_is_settled(plan, host, name) for host in hosts)]
    for name in done:
        rollouts.roll(session, rollouts.of_runtime(name), by=FOLLOW)
    return done


def _active_hosts(session: Session, silent_after: timedelta) -> list[Host]:
    since = database_now(session) - silent_after
    query = (
        select(Worker)
        .join(WorkerContact, WorkerContact.worker_id == Worker.id)
        .where(Worker.removed_at.is_(None), Worker.revoked_at.is_(None), WorkerContact.last_seen_at >= since)
    )
    return [host for worker in session.scalars(query) if (host := host_of(worker)) is not None]


def _is_settled(plan: Plan, host: Host, name: str) -> bool:
    """Return whether a worker has the rolled serial ready, or is not to have it yet."""
    if name not in {plan.name_for(queue) for queue in host.queues}:
        return True
    wanted, rollout = choose(plan, host, name), plan.rollouts[name]
    return wanted is None or wanted.serial != rollout.serial or wanted.tree.digest in host.ready
