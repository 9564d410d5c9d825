"""Dag bundles as users see them: who publishes each, how fresh it is, which workers hold it, and what was published before."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime

from airflow_remote_protocol.states import JobState
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from airflow_remote_provider import compat
from airflow_remote_provider.ledger.audit import record_action
from airflow_remote_provider.ledger.bundles import request
from airflow_remote_provider.ledger.errors import NotFound
from airflow_remote_provider.ledger.presentable import presentable
from airflow_remote_provider.ledger.publishing import publishing_now
from airflow_remote_provider.ledger.statements import SignedStatement, of_trees
from airflow_remote_provider.ledger.trees import BUNDLE
from airflow_remote_provider.ledger.views.scope import EVERYTHING, Scope
from airflow_remote_provider.models import BundleRow, Edition, Job, TreeRow, Worker

MOST_EDITIONS = 50
MOST_HOLDERS = 1000
OPEN = [state.value for state in JobState if not state.is_ended]


@dataclass(frozen=True)
class BundleSummary:
    """One Dag bundle as the API and the CLI show it."""

    name: str
    teams: list[str]
    """The teams that it belongs to; empty: no team."""
    tree: str | None
    """Digest of the newest published tree; None: it was never published."""
    version: str
    """The bundle's own name for that state, such as a commit; empty: it has no versions."""
    files: int | None
    bytes: int | None
    """The number of files of that tree, and their size."""
    published_at: datetime | None
    """When that tree was first published."""
    scanned_at: datetime | None
    """When the last complete scan began: every change before it is in that tree."""
    publisher: str
    """The process that last published or tried to; empty: none did."""
    is_publishing: bool
    """Whether a process publishes it now: one that has renewed its duty within half a minute."""
    trouble: str
    """Why it is not published, or not up to date; empty: no trouble."""
    wanted_at: datetime | None
    """When a user asked to publish it now; None: nobody did, or it is done."""
    workers: int
    """Workers that hold the newest tree."""
    waiting: int
    """Queued jobs that wait for its code."""


@dataclass(frozen=True)
class EditionRow:
    """A state of a bundle that was published, or a version that jobs need."""

    version: str
    tree: str | None
    """None: not published yet."""
    files: int | None
    bytes: int | None
    published_at: datetime | None
    scanned_at: datetime | None
    wanted_at: datetime | None
    """When a job first needed it; None: no job waits for it."""
    trouble: str
    workers: int
    """Workers that hold it."""
    jobs: int
    """Open jobs that run it."""


@dataclass(frozen=True)
class BundleHolder:
    """A worker that holds a published tree of the bundle."""

    worker: str
    tree: str
    """The newest one that it holds."""
    is_newest: bool
    """Whether that is the bundle's newest tree."""


@dataclass(frozen=True)
class BundleDetails:
    """One Dag bundle with its history, and the workers that hold it."""

    about: BundleSummary
    editions: list[EditionRow]
    """Versions that are wanted first, then the published ones, newest first; at most 50."""
    holders: list[BundleHolder]
    """By name, at most 1,000."""
    statements: list[SignedStatement]
    """What was signed about these trees, as the statements say themselves."""


def list_bundles(session: Session, *, scope: Scope = EVERYTHING) -> list[BundleSummary]:
    """Return the bundles of Airflow's configuration and all that were ever published, by name. Seven statements."""
    teams = _teams(session, scope)
    rows = {row.name: row for row in session.scalars(select(BundleRow)) if row.name in teams}
    shapes = _shapes(session, {row.tree for row in rows.values() if row.tree})
    versions = _versions(session, {row.tree for row in rows.values() if row.tree})
    active = publishing_now(session, teams)
    waiting = _waiting(session, scope)
    held = Counter(tree for trees in _inventories(session, scope).values() for tree in trees)
    return [_summary(name, teams[name], rows.get(name), shapes, versions, active, waiting, held) for name in sorted(teams)]


def show_bundle(session: Session, name: str, *, scope: Scope = EVERYTHING) -> BundleDetails:
    """Return one bundle.

    Raises:
        NotFound: there is no such bundle within *scope*.
    """
    found = [bundle for bundle in list_bundles(session, scope=scope) if bundle.name == name]
    if not found:
        raise NotFound(
            f"there is no Dag bundle {presentable(name, longest=100)!r}; `airflow remote bundles list` shows all bundles"
        )
    editions = _editions(session, name)
    trees = {edition.tree for edition in editions if edition.tree}
    inventories = _inventories(session, scope)
    held = Counter(tree for some in inventories.values() for tree in some)
    about = _About(_shapes(session, trees), _jobs(session, trees), held)
    return BundleDetails(
        found[0],
        [about.row(edition) for edition in editions],
        _holders(inventories, [edition.tree for edition in editions if edition.tree], found[0].tree),
        of_trees(session, trees),
    )


@dataclass(frozen=True)
class _About:
    """What is known of trees, by digest."""

    shapes: Mapping[str, tuple[int, int]]
    jobs: Mapping[str, int]
    held: Mapping[str, int]

    def row(self, edition: Edition) -> EditionRow:
        tree = edition.tree or ""
        files, size = self.shapes.get(tree, (None, None))
        return EditionRow(
            version=edition.version,
            tree=edition.tree,
            files=files,
            bytes=size,
            published_at=edition.published_at,
            scanned_at=edition.scanned_at,
            wanted_at=edition.wanted_at,
            trouble=edition.trouble,
            workers=self.held.get(tree, 0),
            jobs=self.jobs.get(tree, 0),
        )


def teams_of(session: Session, name: str, *, scope: Scope = EVERYTHING) -> frozenset[str]:
    """Return the teams that a bundle belongs to; empty: no team.

    Raises:
        NotFound: there is no such bundle within *scope*.
    """
    return frozenset(show_bundle(session, name, scope=scope).about.teams)


def ask_to_publish(session: Session, name: str, *, by: str) -> BundleSummary:
    """Ask the process that publishes the bundle to publish it now, and return the bundle.

    Raises:
        NotFound: there is no such bundle.
    """
    show_bundle(session, name)
    request(session, name)
    record_action(session, by, f"asked to publish the Dag bundle {name}")
    session.flush()
    return show_bundle(session, name).about


def _teams(session: Session, scope: Scope) -> dict[str, frozenset[str]]:
    """Return the bundles within *scope*, each with its teams."""
    teams = {bundle.name: bundle.teams for bundle in compat.known_bundles(session)}
    for name in session.scalars(select(BundleRow.name)):
        teams.setdefault(name, frozenset())
    return {name: some for name, some in teams.items() if not some or any(scope.includes_team(team) for team in some)}


def _summary(
    name: str,
    teams: Collection[str],
    row: BundleRow | None,
    shapes: dict[str, tuple[int, int]],
    versions: dict[tuple[str, str], str],
    active: Collection[str],
    waiting: dict[str, int],
    held: Counter[str],
) -> BundleSummary:
    tree = row.tree if row else None
    files, size = shapes.get(tree or "", (None, None))
    return BundleSummary(
        name=name,
        teams=sorted(teams),
        tree=tree,
        version=versions.get((name, tree or ""), ""),
        files=files,
        bytes=size,
        published_at=row.published_at if row else None,
        scanned_at=row.scanned_at if row else None,
        publisher=row.publisher if row else "",
        is_publishing=name in active,
        trouble=row.trouble if row else "",
        wanted_at=row.wanted_at if row else None,
        workers=held[tree or ""],
        waiting=waiting.get(name, 0),
    )


def _shapes(session: Session, digests: Collection[str]) -> dict[str, tuple[int, int]]:
    """Return the number of files and the size of trees."""
    query = select(TreeRow.digest, TreeRow.files, TreeRow.bytes).where(TreeRow.digest.in_(list(digests)))
    return {row.digest: (row.files, row.bytes) for row in session.execute(query)} if digests else {}


def _versions(session: Session, digests: Collection[str]) -> dict[tuple[str, str], str]:
    """Return the newest version of each bundle and tree."""
    query = select(Edition.name, Edition.tree, Edition.version).where(Edition.kind == BUNDLE, Edition.tree.in_(list(digests)))
    rows = session.execute(query.order_by(Edition.published_at, Edition.id)) if digests else ()
    return {(row.name, row.tree or ""): row.version for row in rows}


def _editions(session: Session, name: str) -> list[Edition]:
    of_bundle = select(Edition).where(Edition.kind == BUNDLE, Edition.name == name)
    wanted = session.scalars(of_bundle.where(Edition.tree.is_(None)).order_by(Edition.id).limit(MOST_EDITIONS)).all()
    published = of_bundle.where(Edition.tree.is_not(None)).order_by(Edition.published_at.desc(), Edition.id.desc())
    return [*wanted, *session.scalars(published.limit(MOST_EDITIONS - len(wanted)))]


def _waiting(session: Session, scope: Scope) -> dict[str, int]:
    query = select(Job.bundle, func.count().label("jobs")).where(
        Job.state == JobState.QUEUED.value, Job.code_waits, Job.bundle.is_not(None)
    )
    rows = session.execute(query.where(scope.sees_team(Job.team)).group_by(Job.bundle))
    return {row.bundle or "": row.jobs for row in rows}


def _jobs(session: Session, digests: Collection[str]) -> dict[str, int]:
    counted = select(Job.tree, func.count().label("jobs")).where(Job.state.in_(OPEN), Job.tree.in_(list(digests)))
    return {row.tree or "": row.jobs for row in session.execute(counted.group_by(Job.tree))} if digests else {}


def _inventories(session: Session, scope: Scope) -> dict[str, list[str]]:
    """Return the trees that each worker reported to hold, by the worker's name."""
    query = select(Worker.name, Worker.inventory).where(
        Worker.inventory.is_not(None), Worker.removed_at.is_(None), Worker.revoked_at.is_(None), scope.sees_team(Worker.team)
    )
    return {row.name: row.inventory for row in session.execute(query) if row.inventory}


def _holders(inventories: dict[str, list[str]], newest_first: list[str], newest: str | None) -> list[BundleHolder]:
    holders = []
    for worker, inventory in sorted(inventories.items()):
        has = set(inventory)
        held = newest if newest in has else next((tree for tree in newest_first if tree in has), None)
        if held is not None:
            holders.append(BundleHolder(worker, held, held == newest))
    return holders[:MOST_HOLDERS]
