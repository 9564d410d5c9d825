"""Releases of the worker's own software as users see them: what was added and rolled out, and which worker runs what."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from airflow_remote_protocol.messages import ReleasePhase
from airflow_remote_protocol.version import Capability
from sqlalchemy import select
from sqlalchemy.orm import Session

from airflow_remote_provider.definitions.needs import pairs_of
from airflow_remote_provider.ledger import releases, runtimes
from airflow_remote_provider.ledger.assignments import WORKER, Host, Plan, choose_release, release_host_of
from airflow_remote_provider.ledger.runtimes import RuntimeEdition
from airflow_remote_provider.ledger.statements import SignedStatement, of_trees
from airflow_remote_provider.ledger.trees import RELEASE
from airflow_remote_provider.ledger.views.scope import EVERYTHING, Scope
from airflow_remote_provider.models import ReleaseRow, Worker

MOST_WORKERS = 1000
"""Workers that are listed; those that do not run what they are to run come first."""
WAITING = "waiting"
"""A phase beside those of :class:`ReleasePhase`: the worker has not begun to prepare what it is to run."""


@dataclass(frozen=True)
class ReleaseEditionRow:
    """The tree of one serial for one platform."""

    serial: int
    version: str
    """Of the package `airflow-remote-worker`."""
    platform: str
    tree: str
    files: int
    bytes: int
    published_at: datetime
    running: int
    """Workers that run it."""


@dataclass(frozen=True)
class ReleaseWorkerRow:
    """One worker, and the release that it is to run."""

    worker: str
    platform: str
    serial: int
    """The serial that it is to run; 0: the one that it runs."""
    version: str
    """The version of that serial; empty: none is named."""
    runs: str
    """The version that it reported when its daemon started."""
    is_installed: bool
    """Whether it runs the release that its site has installed."""
    phase: str
    """`running`, `trying`, `preparing`, `failed`, `refused`; `waiting`: it has not begun; empty: none is named."""
    detail: str
    """Progress, or why it does not run it and what to do."""


@dataclass(frozen=True)
class ReleasesSummary:
    """Which release is rolled out, and how far."""

    serial: int
    """The serial that is rolled out; 0: none yet."""
    version: str
    """Its version; empty: none is rolled out."""
    previous: int
    """The serial of the workers that are not to have the rolled one; 0: they keep what they run."""
    built: int
    """The newest serial."""
    percent: int
    labels: dict[str, str]
    """Empty: all workers."""
    halted: str
    """Why the rollout is halted; empty: it is not."""
    trouble: str
    """Why the last release could not be added; empty: it could."""
    workers: int
    """Workers that take releases from central."""
    running: int
    """Workers that run the release that they are to run."""
    trying: int
    preparing: int
    failed: int
    refused: int
    follow: bool
    """Whether the release of a newer provider is added and rolled out without a command."""
    updated_at: datetime
    updated_by: str


@dataclass(frozen=True)
class ReleasesDetails:
    """The rollout, what was added, and the workers."""

    about: ReleasesSummary
    editions: list[ReleaseEditionRow]
    """The newest serial first."""
    workers: list[ReleaseWorkerRow]
    """Those that do not run what they are to run come first; at most 1,000."""
    statements: list[SignedStatement]
    """What was signed about these trees, as the statements say themselves."""


@dataclass(frozen=True)
class HeldReleaseRow:
    """The release of its own software that a worker has reported."""

    serial: int
    """The one that it is to run, or that failed; 0: none is named."""
    phase: str
    detail: str
    is_installed: bool
    """Whether it runs the release that its site has installed."""


def held_release(release: Mapping[str, Any] | None) -> HeldReleaseRow | None:
    """Return what a worker has reported; None: nothing. A release that failed is shown until another one is named."""
    if release is None:
        return None
    if not release["serial"] and release["failed"]:
        failed = ReleasePhase.FAILED.value
        return HeldReleaseRow(release["failed"], failed, release["reason"], is_installed=not release["runs"])
    return HeldReleaseRow(release["serial"], release["phase"], release["detail"], is_installed=not release["runs"])


def show_releases(session: Session, *, scope: Scope = EVERYTHING) -> ReleasesDetails:
    """Return the rollout of releases.

    Raises:
        NotFound: nothing was ever added.
    """
    row = session.get(ReleaseRow, WORKER, populate_existing=True)
    if row is None:
        raise releases.none_added()
    rows, trees = _read_workers(session, scope)
    added = runtimes.editions(session, WORKER, kind=RELEASE).get(WORKER, ())
    phases = Counter(one.phase for one in rows)
    about = ReleasesSummary(
        serial=row.serial,
        version=_version_of(row.serial, added, row),
        previous=row.previous,
        built=row.built,
        percent=row.percent,
        labels=dict(pairs_of(row.labels)) if row.labels else {},
        halted=row.halted,
        trouble=row.trouble,
        workers=len(rows),
        running=phases[ReleasePhase.RUNNING.value],
        trying=phases[ReleasePhase.TRYING.value],
        preparing=phases[ReleasePhase.PREPARING.value] + phases[WAITING],
        failed=phases[ReleasePhase.FAILED.value],
        refused=phases[ReleasePhase.REFUSED.value],
        follow=row.follow,
        updated_at=row.updated_at,
        updated_by=row.updated_by,
    )
    editions = [
        ReleaseEditionRow(
            serial=one.serial,
            version=row.versions.get(one.tree, ""),
            platform=one.platform,
            tree=one.tree,
            files=one.files,
            bytes=one.bytes,
            published_at=one.published_at,
            running=trees[one.tree],
        )
        for one in added
    ]
    settled = ("", ReleasePhase.RUNNING.value)
    shown = sorted(rows, key=lambda one: (one.phase in settled, one.worker))[:MOST_WORKERS]
    return ReleasesDetails(about, editions, shown, of_trees(session, {one.tree for one in added}))


def _version_of(serial: int, added: Sequence[RuntimeEdition], row: ReleaseRow) -> str:
    """Return the version of a serial; empty: there is no such serial. A rollback may name several: the first."""
    return next((row.versions.get(one.tree, "") for one in added if one.serial == serial), "")


def summarize_releases(session: Session, *, scope: Scope = EVERYTHING) -> ReleasesSummary:
    """Return how far the rollout is. Raises: NotFound: nothing was ever added."""
    return show_releases(session, scope=scope).about


def teams_with_releases(session: Session) -> list[str | None]:
    """Return the teams of the workers that take releases from central; None: workers without a team."""
    query = select(Worker.team, Worker.capabilities).where(Worker.removed_at.is_(None), Worker.revoked_at.is_(None))
    teams = {team for team, capabilities in session.execute(query) if Capability.RELEASES.value in (capabilities or ())}
    return sorted(teams, key=lambda team: team or "")


def count_release_phases(session: Session) -> dict[tuple[int, str], int]:
    """Return how many workers have the release that they are to run in each phase: by serial (0: none is named) and phase."""
    rows, _ = _read_workers(session, EVERYTHING)
    return dict(Counter((one.serial, one.phase or ReleasePhase.RUNNING.value) for one in rows))


def _read_workers(session: Session, scope: Scope) -> tuple[list[ReleaseWorkerRow], Counter[str]]:
    """Return the workers within *scope* that take releases, by name, and how many workers run each tree."""
    columns = (
        Worker.id,
        Worker.name,
        Worker.labels,
        Worker.facts,
        Worker.capabilities,
        Worker.release,
        Worker.release_asked,
    )
    query = select(*columns).where(Worker.removed_at.is_(None), Worker.revoked_at.is_(None), scope.sees_team(Worker.team))
    plan = runtimes.load_plan(session)
    rows: list[ReleaseWorkerRow] = []
    trees: Counter[str] = Counter()
    for worker in session.execute(query.order_by(Worker.name)):
        host = release_host_of(worker)
        if host is not None:
            rows.append(_row(plan, host, worker))
            trees[(worker.release or {}).get("runs", "")] += 1
    return rows, trees


def _row(plan: Plan, host: Host, worker: Any) -> ReleaseWorkerRow:
    wanted, held = choose_release(plan.releases, host), worker.release or {}
    rollout = plan.releases.rollout
    if wanted is not None:
        is_mine = held.get("serial") == wanted.serial
        phase, detail = (held["phase"], held["detail"]) if is_mine else (WAITING, "")
    elif rollout is not None and rollout.serial == held.get("failed"):  # it was named the release before the halt
        phase, detail = ReleasePhase.FAILED.value, held["reason"]
    else:
        phase, detail = "", ""
    return ReleaseWorkerRow(
        worker=worker.name,
        platform=host.platform,
        serial=wanted.serial if wanted else 0,
        version=wanted.version if wanted else "",
        runs=(worker.facts or {}).get("version", ""),
        is_installed=not held.get("runs"),
        phase=phase,
        detail=detail,
    )
