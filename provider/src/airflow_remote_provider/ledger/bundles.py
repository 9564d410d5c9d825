"""Dag bundles: which tree is the newest, which versions are published, which are wanted, and who publishes.

Each verb first locks the bundle's row, so that publishers, users and claims that ask for a version come one after the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from airflow_remote_protocol.messages import JobKind
from airflow_remote_protocol.states import JobEvent, JobState, advance
from airflow_remote_protocol.trees import Tree
from sqlalchemy import or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from airflow_remote_provider.compat import database_now
from airflow_remote_provider.ledger import deferrals
from airflow_remote_provider.ledger.presentable import presentable
from airflow_remote_provider.ledger.trees import BUNDLE, finish_tree, unfinish_tree
from airflow_remote_provider.ledger.wakeup import Topic, wake
from airflow_remote_provider.models import BundleRow, Edition, Job

LONGEST_TROUBLE = 2000
BATCH = 200
"""Jobs that one statement locks."""


@dataclass(frozen=True)
class PublishedBundle:
    """A bundle as a publisher found it."""

    name: str
    version: str | None
    """None: the bundle has no versions."""
    tree: Tree
    scanned_at: datetime
    """The database's clock when the scan began."""
    publisher: str
    """Who published it, for users: a host and a process."""
    is_newest: bool = True
    """Whether this is the bundle's present state, and not an older version that a job wanted."""


def publish(session: Session, published: PublishedBundle) -> bool:
    """Make a tree available to jobs. Return False if a later scan has published already: then nothing has changed.

    Jobs that wait for this version, or for a newer scan of the bundle, are considered again, and the API processes learn of it.

    Raises:
        TreeGone, BlobsMissing: as :func:`.trees.finish_tree`; nothing has changed.
    """
    bundle = _lock(session, published.name)
    is_stale = bundle.scanned_at is not None and published.scanned_at < bundle.scanned_at
    if is_stale and published.version is None:
        return False
    finish_tree(session, published.tree)
    now = database_now(session)
    _note_edition(session, published, now)
    bundle.versioned = published.version is not None
    bundle.publisher = published.publisher[:250]
    if published.is_newest and not is_stale:
        if bundle.tree != published.tree.digest:
            bundle.tree, bundle.published_at = published.tree.digest, now
        _note_scanned(bundle, published.scanned_at)
    versions = {published.version, None} if published.is_newest else {published.version}
    _release(session, published.name, versions)
    return True


def _note_edition(session: Session, published: PublishedBundle, now: datetime) -> None:
    """Note the tree as an edition: a bundle without versions gets another one only if its newest has another tree."""
    version = published.version or ""
    of_version = select(Edition).where(Edition.kind == BUNDLE, Edition.name == published.name, Edition.version == version)
    edition = session.scalar(of_version.order_by(Edition.id.desc()).limit(1))
    digest = published.tree.digest
    if edition is None or (not version and edition.tree != digest):
        edition = Edition(kind=BUNDLE, name=published.name, version=version, platform="", trouble="")
        session.add(edition)
    if edition.tree != digest:
        edition.tree, edition.published_at = digest, now
    edition.scanned_at, edition.wanted_at, edition.trouble = published.scanned_at, None, ""
    session.flush()


def note_scan(session: Session, name: str, scanned_at: datetime, *, publisher: str | None = None) -> None:
    """Note a complete scan that found the bundle unchanged: its newest tree has every change before *scanned_at*."""
    bundle = _lock(session, name)
    if bundle.tree is None or (bundle.scanned_at is not None and scanned_at < bundle.scanned_at):
        return
    if publisher is not None:
        bundle.publisher = publisher[:250]
    _note_scanned(bundle, scanned_at)
    newest = session.scalar(
        select(Edition)
        .where(Edition.kind == BUNDLE, Edition.name == name, Edition.tree == bundle.tree)
        .order_by(Edition.id.desc())
        .limit(1)
    )
    if newest is not None:
        newest.scanned_at = scanned_at
    _release(session, name, {None})


def note_trouble(session: Session, name: str, text: str, version: str | None = None, *, publisher: str | None = None) -> None:
    """Note why a bundle can't be published; with *version*, that this version does not exist, and fail the jobs that wait for it.

    The trouble ends with the next scan or publication.
    """
    bundle = _lock(session, name)
    text = presentable(text, longest=LONGEST_TROUBLE)
    if publisher is not None:
        bundle.publisher = publisher[:250]
    if version is None:
        bundle.trouble = text
        return
    edition = _of_version(session, name, version)
    if edition is not None and edition.tree is None:
        edition.wanted_at, edition.trouble = None, text
        _fail(session, name, version, f"version {version} of the Dag bundle {name!r} can't be published: {text}")


def request(session: Session, name: str) -> None:
    """Ask the bundle's publisher to publish it now."""
    bundle = _lock(session, name)
    bundle.wanted_at = database_now(session)
    wake(session, Topic.PUBLISH)


def want_version(session: Session, name: str, version: str) -> None:
    """Ask the bundle's publisher for a version that a job needs, unless it is published."""
    _lock(session, name)
    edition = _of_version(session, name, version)
    if edition is None:
        edition = Edition(kind=BUNDLE, name=name, version=version, platform="", trouble="")
        session.add(edition)
    if edition.tree is None and edition.wanted_at is None:
        edition.wanted_at = database_now(session)
    session.flush()


def lose_tree(session: Session, digest: str, *, blob: tuple[str, str] | None = None) -> None:
    """Note that a published tree is incomplete, so that its publisher stores what is missing at its next scan.

    Args:
        blob: the SHA-256 of a blob and the place where the store has no bytes of it. Its row is deleted.
    """
    names = select(Edition.name).where(Edition.kind == BUNDLE, Edition.tree == digest).distinct()
    for name in sorted(session.scalars(names)):
        bundle = _lock(session, name)
        if bundle.tree == digest:
            bundle.tree = None
    versions = update(Edition).where(Edition.kind == BUNDLE, Edition.tree == digest, Edition.version != "")
    session.execute(versions.values(tree=None, wanted_at=database_now(session)).execution_options(synchronize_session=False))
    session.flush()
    unfinish_tree(session, digest, blob=blob)


def is_published(session: Session, name: str) -> bool:
    """Return whether any tree of the bundle was ever published. The code of other bundles is the site's own affair."""
    published = select(Edition.id).where(Edition.kind == BUNDLE, Edition.name == name, Edition.tree.is_not(None))
    return session.scalar(published.limit(1)) is not None


@dataclass(frozen=True)
class BundleState:
    """Who publishes a bundle, and how fresh it is."""

    publisher: str
    """Empty: nobody has published it."""
    scanned_at: datetime | None
    """The database's clock when the last complete scan began; None: it was never published."""
    trouble: str


def find_state(session: Session, name: str) -> BundleState | None:
    """Return what is known of a bundle; None: no publisher has said anything of it."""
    query = select(BundleRow.publisher, BundleRow.scanned_at, BundleRow.trouble).where(BundleRow.name == name)
    row = session.execute(query).one_or_none()
    return None if row is None else BundleState(row.publisher, row.scanned_at, row.trouble)


@dataclass(frozen=True)
class PublishedTree:
    """A tree of a bundle, as it was published."""

    tree: str
    """Its digest."""
    version: str
    """Empty: the bundle has no versions."""
    published_at: datetime
    scanned_at: datetime
    """The database's clock when the newest scan with this result began."""


def tree_of_version(session: Session, name: str, version: str) -> str | None:
    """Return the digest of a published version's tree; None if it is not published."""
    edition = _of_version(session, name, version)
    return None if edition is None else edition.tree


def newest_trees(session: Session, name: str, *, most: int) -> Sequence[PublishedTree]:
    """Return the trees that were published of the bundle, the newest first."""
    query = select(Edition).where(Edition.kind == BUNDLE, Edition.name == name, Edition.tree.is_not(None))
    found = []
    for edition in session.scalars(query.order_by(Edition.published_at.desc(), Edition.id.desc()).limit(most)):
        assert edition.tree is not None and edition.published_at is not None and edition.scanned_at is not None
        found.append(PublishedTree(edition.tree, edition.version, edition.published_at, edition.scanned_at))
    return found


def _of_version(session: Session, name: str, version: str) -> Edition | None:
    query = select(Edition).where(Edition.kind == BUNDLE, Edition.name == name, Edition.version == version)
    return session.scalar(query.order_by(Edition.id.desc()).limit(1))


def _lock(session: Session, name: str) -> BundleRow:
    """Return the bundle's row, locked; a new one if it has none."""
    query = select(BundleRow).where(BundleRow.name == name).with_for_update()
    row = session.scalar(query.execution_options(populate_existing=True))
    if row is not None:
        return row
    row = BundleRow(name=name, versioned=False, publisher="", trouble="")
    try:
        with session.begin_nested():
            session.add(row)
            session.flush()
    except IntegrityError:  # added by another process at this moment
        return session.scalars(query).one()
    return row


def _note_scanned(bundle: BundleRow, scanned_at: datetime) -> None:
    bundle.scanned_at, bundle.trouble = scanned_at, ""
    if bundle.wanted_at is not None and bundle.wanted_at <= scanned_at:  # a scan that began before the request may miss a change
        bundle.wanted_at = None


def _release(session: Session, name: str, versions: set[str | None]) -> None:
    """Let the next claim consider the jobs that wait for one of these versions; None: those that need no version."""
    of_version = or_(*(Job.bundle_version.is_(None) if one is None else Job.bundle_version == one for one in versions))
    released = session.execute(
        update(Job)
        .where(Job.state == JobState.QUEUED.value, Job.code_waits, Job.bundle == name, of_version)
        .values(code_waits=False)
        .execution_options(synchronize_session=False)
    )
    if released.rowcount:  # type: ignore[attr-defined]
        wake(session, Topic.QUEUED)


def _fail(session: Session, name: str, version: str, reason: str) -> None:
    """Fail the queued jobs that wait for a version which can't be had."""
    query = (
        select(Job)
        .where(Job.state == JobState.QUEUED.value, Job.code_waits, Job.bundle == name, Job.bundle_version == version)
        .order_by(Job.id)
        .limit(BATCH)
        .with_for_update()
    )
    while jobs := session.scalars(query).all():
        now = database_now(session)
        for job in jobs:
            if job.kind == JobKind.TRIGGER.value:
                deferrals.fail(session, job, reason)
                continue
            job.state = advance(JobState.QUEUED, JobEvent.FAIL).value
            job.ended_at, job.reason = now, reason
        session.flush()
