"""Rollouts that need no command: first to some workers, and to all when these use what was rolled out.

They are of runtimes and releases that follow central's versions. A command of a user ends the stages: then the user decides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from airflow_remote_protocol.messages import ReleasePhase, RuntimeRef
from sqlalchemy import ColumnElement, and_, select
from sqlalchemy.orm import Session

from airflow_remote_provider.compat import database_now
from airflow_remote_provider.definitions.needs import pairs_of
from airflow_remote_provider.ledger import assignments, rollouts, runtimes
from airflow_remote_provider.ledger.assignments import Editions, Host, Plan, Rollout
from airflow_remote_provider.ledger.rollouts import RELEASES, Kind
from airflow_remote_provider.ledger.trees import RELEASE
from airflow_remote_provider.models import ReleaseRow, RuntimeRow, Worker, WorkerContact

FOLLOW = "follow"
"""Who made and rolled out, in `updated_by` of a runtime or of the release whose rollout has stages."""
FIRST_PERCENT = 10
"""The share of the workers that come first; more if nobody would be among them."""


@dataclass(frozen=True)
class _Affected:
    """A worker for which a rollout changes something."""

    host: Host
    rolled: RuntimeRef
    """What it gets by the rollout, sooner or later."""
    seen_at: datetime

    @property
    def is_settled(self) -> bool:
        return self.rolled.tree.digest in self.host.ready


def begin(session: Session, kind: Kind, *, adds_only: bool, silent_after: timedelta) -> bool:
    """Roll out the newest serial, which was just added; return whether it is rolled out.

    It is not if a serial of a user, or a halted rollout, waits for a user: this one would take those along.
    With *adds_only*, the serial changes nothing for workers of other platforms, and keeps the share of the rollout.
    """
    row = kind.lock(session)
    if row.serial == row.built:
        return True  # the first one of a runtime
    if row.serial != row.built - 1 or (adds_only and row.halted):
        return False
    percent, labels = row.percent, row.labels
    if not adds_only:
        planned = Rollout(serial=row.built, previous=rollouts.fallback(kind, row))
        plan = _with_rollout(runtimes.load_plan(session), kind, planned)
        active = _active(session, _affected(session, plan, kind), silent_after)
        percent, labels = _first_percent(kind, active), None
    rollouts.roll(session, kind, by=FOLLOW, percent=percent, labels=dict(pairs_of(labels)) if labels else None)
    return True


def begin_left(session: Session, *, silent_after: timedelta) -> list[Kind]:
    """Roll out what was made and not rolled out because the process ended between the two."""
    found = _kinds(session, lambda model: model.serial == model.built - 1)
    return [kind for kind in found if begin(session, kind, adds_only=False, silent_after=silent_after)]


def widen(session: Session, *, silent_after: timedelta) -> list[Kind]:
    """Roll out to all workers what all of the first ones use, and at least one; return what this is.

    Of a runtime, workers without a contact since *silent_after* don't count, so that one that is switched off holds nobody up.
    Of a release, they do if they had contact when it was published: it may be the release that has ended them.
    If nobody counts, the share grows until a worker is among the first.
    """
    found = _kinds(session, lambda model: and_(model.serial == model.built, model.percent < 100, model.labels.is_(None)))
    if not found:
        return []
    plan, done = runtimes.load_plan(session), []
    for kind in found:
        affected = _affected(session, plan, kind)
        active = _active(session, affected, silent_after)
        counted = _seen_since_published(session, kind, affected, silent_after) if kind.kind == RELEASE else active
        first = [one for one in counted if _is_included(plan, kind, one)]
        if first and all(one.is_settled for one in first):
            rollouts.roll(session, kind, by=FOLLOW)
            done.append(kind)
        elif not first and (percent := _first_percent(kind, active)) > kind.lock(session).percent:
            rollouts.roll(session, kind, by=FOLLOW, percent=percent)
    return done


def _kinds(session: Session, condition: Callable[[Any], ColumnElement[bool]]) -> list[Kind]:
    """Return what follows central, is not halted, and meets a condition on the columns of its row, which is locked."""

    def names(model: Any) -> Iterable[str]:
        query = select(model.name).where(model.updated_by == FOLLOW, model.halted == "", condition(model))
        return session.scalars(query.order_by(model.name).with_for_update())

    return [*map(rollouts.of_runtime, names(RuntimeRow)), *(RELEASES for _ in names(ReleaseRow))]


def _with_rollout(plan: Plan, kind: Kind, rollout: Rollout) -> Plan:
    if kind.kind == RELEASE:
        return replace(plan, releases=replace(plan.releases, rollout=rollout))
    return replace(plan, rollouts={**plan.rollouts, kind.name: rollout})


def _affected(session: Session, plan: Plan, kind: Kind) -> list[_Affected]:
    """Return the workers that get something else by the rollout. Those that refuse it get nothing, and count for nothing."""
    rollout, editions = _rollout_of(plan, kind)
    query = (
        select(Worker, WorkerContact.last_seen_at)
        .join(WorkerContact, WorkerContact.worker_id == Worker.id)
        .where(Worker.removed_at.is_(None), Worker.revoked_at.is_(None))
    )
    found = []
    for worker, seen_at in session.execute(query):
        host = _host_of(plan, kind, worker)
        rolled = assignments.newest_edition(editions, host, kind.name, rollout.serial) if host is not None else None
        if host is None or rolled is None or seen_at is None:
            continue
        before = assignments.newest_edition(editions, host, kind.name, rollout.previous)
        if (before is None or before.tree != rolled.tree) and not _refuses(kind, worker, rolled):
            found.append(_Affected(host, rolled, seen_at))
    return found


def _rollout_of(plan: Plan, kind: Kind) -> tuple[Rollout, Editions]:
    if kind.kind == RELEASE:
        return plan.releases.rollout or Rollout(0), plan.releases.editions
    return plan.rollouts[kind.name], plan.editions.get(kind.name, {})


def _host_of(plan: Plan, kind: Kind, worker: Worker) -> Host | None:
    if kind.kind == RELEASE:
        return assignments.release_host_of(worker)
    host = assignments.host_of(worker)
    return host if host is not None and kind.name in {plan.name_for(queue) for queue in host.queues} else None


def _refuses(kind: Kind, worker: Worker, rolled: RuntimeRef) -> bool:
    held = (worker.release or {}) if kind.kind == RELEASE else {}
    return held.get("phase") == ReleasePhase.REFUSED.value and held["tree"] == rolled.tree.digest


def _is_included(plan: Plan, kind: Kind, one: _Affected) -> bool:
    """Return whether the worker is to have it now: by the share, or because a user asked for it."""
    if kind.kind == RELEASE:
        named = assignments.choose_release(plan.releases, one.host)
        return named is not None and named.tree == one.rolled.tree
    wanted = assignments.choose(plan, one.host, kind.name)
    return wanted is not None and wanted.tree == one.rolled.tree


def _active(session: Session, affected: Iterable[_Affected], silent_after: timedelta) -> list[_Affected]:
    since = database_now(session) - silent_after
    return [one for one in affected if one.seen_at >= since]


def _seen_since_published(
    session: Session, kind: Kind, affected: Iterable[_Affected], silent_after: timedelta
) -> list[_Affected]:
    """Return those that had contact when what they get was published, or later."""
    editions = runtimes.editions(session, kind.name, kind=kind.kind).get(kind.name, ())
    published = {(one.serial, one.platform): one.published_at for one in editions}
    return [one for one in affected if one.seen_at >= published[one.rolled.serial, one.host.platform] - silent_after]


def _first_percent(kind: Kind, active: Sequence[_Affected]) -> int:
    """Return the share by which at least one of these workers is among the first."""
    buckets = [assignments.bucket(one.host.worker_id, kind.name) for one in active]
    return max(FIRST_PERCENT, min(buckets, default=0) + 1)
