"""The garbage collection of trees: old editions, trees that nothing refers to, and their blobs.

:mod:`.trees` says what makes it safe while publishers work.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from airflow_remote_protocol.messages import TreeRef
from airflow_remote_protocol.states import JobState
from sqlalchemy import and_, delete, func, or_, select, update
from sqlalchemy.orm import Session

from airflow_remote_provider.compat import database_now
from airflow_remote_provider.ledger import releases, runtimes, statements
from airflow_remote_provider.ledger.assignments import needed_serials
from airflow_remote_provider.ledger.trees import BUNDLE, INCOMING, RELEASE, RUNTIME, SEEN_KEPT, batches
from airflow_remote_provider.models import Blob, BundleRow, Edition, Job, ReleaseRow, RuntimeRow, TreeRow

BATCH = 500
"""Trees that one call deletes."""
SWEPT_FILES = 50_000
"""Files of the trees that one call of :func:`sweep` deletes; one tree can be larger. Bounds its memory to about 20 MB."""
EDITIONS_KEPT = 3
"""Editions of a bundle that are kept, whatever their age, beside the current one."""
MOST_EDITIONS = 100
"""Editions of a bundle that are kept for `[remote] tree_days`. A bundle that changes every minute would otherwise have thousands
of manifests."""
SERIALS_KEPT = 3
"""Newest serials of a runtime that are kept, whatever their age."""
MOST_SERIALS = 20
"""Serials of a runtime that are kept for `[remote] tree_days`. Each can have hundreds of MB."""
OPEN = [state.value for state in JobState if not state.is_ended]


@dataclass(frozen=True)
class Swept:
    """What one call of :func:`sweep` deleted."""

    editions: int
    trees: int
    places: list[str]
    """Places in the blob store whose bytes are to be deleted after the commit."""

    @property
    def is_all(self) -> bool:
        """Whether there was nothing to delete, so that no further call is needed."""
        return not (self.editions or self.trees)


def sweep(session: Session, now: datetime, *, tree_days: float) -> Swept:
    """Delete a batch of what nobody needs: old editions, then trees that nothing refers to, and their blobs.

    Kept are the newest tree of each bundle, its :data:`EDITIONS_KEPT` newest editions, its :data:`MOST_EDITIONS` newest ones of
    the last *tree_days* days; likewise the serials of each runtime, and what its rollout needs; the trees of open jobs; and
    whatever a publisher has relied on within :data:`SEEN_KEPT`. *now* is the database's clock. Call it again until nothing is
    left.
    """
    editions = _sweep_editions(session, now - timedelta(days=tree_days))
    dead = _lock_unused(session, now - SEEN_KEPT)
    if not dead:
        return Swept(editions, 0, [])
    return Swept(editions, len(dead), _delete(session, dead, now - SEEN_KEPT))


def _sweep_editions(session: Session, before: datetime) -> int:
    crowded = session.execute(
        select(Edition.kind, Edition.name)
        .group_by(Edition.kind, Edition.name)
        .having(func.count() > EDITIONS_KEPT)
        .order_by(Edition.kind, Edition.name)
    ).all()
    sweep_of = {BUNDLE: _sweep_bundle, RUNTIME: _sweep_runtime, RELEASE: _sweep_releases}
    return sum(sweep_of[kind](session, name, before) for kind, name in crowded if kind in sweep_of)


def _sweep_bundle(session: Session, name: str, before: datetime) -> int:
    """Delete old editions of one bundle, and versions that no job wants any more and nobody has published. Return how many."""
    # The lock under which editions are published and wanted (`bundles`).
    current = session.scalar(select(BundleRow.tree).where(BundleRow.name == name).with_for_update())
    rows = session.execute(
        select(Edition.id, Edition.version, Edition.tree, Edition.published_at, Edition.wanted_at)
        .where(Edition.kind == BUNDLE, Edition.name == name)
        .order_by(Edition.published_at.desc(), Edition.id.desc())
    ).all()
    open_jobs = select(Job.bundle_version).where(Job.state.in_(OPEN), Job.bundle == name, Job.bundle_version.is_not(None))
    needed = set(session.scalars(open_jobs.distinct()))
    published = [row for row in rows if row.tree is not None]
    old = [
        row.id
        for rank, row in enumerate(published)
        if rank > EDITIONS_KEPT
        and (row.published_at < before or rank >= MOST_EDITIONS)
        and row.tree != current
        and row.version not in needed
    ]
    old += [row.id for row in rows if row.tree is None and row.version not in needed and (row.wanted_at or before) <= before]
    _forget_editions(session, old)
    return len(old)


def _sweep_runtime(session: Session, name: str, before: datetime) -> int:
    row = runtimes.find_locked(session, name)  # the lock under which editions are added and rolled out
    return 0 if row is None else _sweep_serials(session, RUNTIME, row, before)


def _sweep_releases(session: Session, name: str, before: datetime) -> int:
    row = releases.find_locked(session)
    return 0 if row is None else _sweep_serials(session, RELEASE, row, before)


def _sweep_serials(session: Session, kind: str, row: RuntimeRow | ReleaseRow, before: datetime) -> int:
    """Delete old editions of one runtime, or of releases. Return how many.

    Those stay that the rollout may give to a worker, those of the newest serials, and those in which open jobs run.
    """
    rows = session.execute(
        select(Edition.id, Edition.version, Edition.platform, Edition.tree, Edition.published_at).where(
            Edition.kind == kind, Edition.name == row.name
        )
    ).all()
    by_serial: dict[int, dict[str, TreeRef]] = {}
    for one in rows:
        by_serial.setdefault(int(one.version), {})[one.platform] = TreeRef(one.tree, 0, 0)
    needed = needed_serials(runtimes.rollout_of(row), by_serial)
    rank = {serial: number for number, serial in enumerate(sorted(by_serial, reverse=True))}
    trees = [one.tree for one in rows]
    in_use = set(session.scalars(select(Job.runtime).where(Job.state.in_(OPEN), Job.runtime.in_(trees)).distinct()))
    old = [
        one.id
        for one in rows
        if (serial := int(one.version)) in rank
        and rank[serial] >= SERIALS_KEPT
        and (one.published_at < before or rank[serial] >= MOST_SERIALS)
        and (serial, one.platform) not in needed
        and one.tree not in in_use
    ]
    if old:
        _forget_editions(session, old)
        runtimes.note_change(session, row, row.updated_by)
    return len(old)


def _forget_editions(session: Session, ids: Sequence[int]) -> None:
    for batch in batches(ids):
        session.execute(delete(Edition).where(Edition.id.in_(batch)).execution_options(synchronize_session=False))


def _lock_unused(session: Session, seen_before: datetime) -> dict[str, bytes]:
    """Lock a batch of trees that nothing refers to; return their packed manifests by digest.

    They are looked for first, and checked again under the lock: what refers to a tree locks its row before.
    """
    unused = and_(
        TreeRow.seen_at < seen_before,
        ~select(Edition.id).where(Edition.tree == TreeRow.digest).exists(),
        ~select(BundleRow.name).where(BundleRow.tree == TreeRow.digest).exists(),
        ~select(Job.id).where(or_(Job.tree == TreeRow.digest, Job.runtime == TreeRow.digest), Job.state.in_(OPEN)).exists(),
    )
    found: list[str] = []
    files = 0
    oldest_first = select(TreeRow.digest, TreeRow.files).where(unused).order_by(TreeRow.seen_at, TreeRow.digest).limit(BATCH)
    for row in session.execute(oldest_first):
        if found and files + row.files > SWEPT_FILES:
            break
        found.append(row.digest)
        files += row.files
    if not found:
        return {}
    locked = session.scalars(
        select(TreeRow.digest)
        .where(TreeRow.digest.in_(found), TreeRow.seen_at < seen_before)
        .order_by(TreeRow.digest)
        .with_for_update(skip_locked=True)
    ).all()
    # In a statement of its own, which sees what was committed before the locks were granted.
    query = select(TreeRow.digest, TreeRow.manifest).where(TreeRow.digest.in_(locked), unused)
    return {row.digest: row.manifest for row in session.execute(query)}


def _delete(session: Session, dead: dict[str, bytes], seen_before: datetime) -> list[str]:
    """Delete locked trees, and their blobs that no other tree names; return the places of these blobs."""
    candidates: set[bytes] = set()
    for packed in dead.values():
        candidates |= _hashes(packed)
    for digest in session.scalars(select(TreeRow.digest).where(TreeRow.digest.not_in(list(dead)))).all():
        if not candidates:
            break
        manifest = session.scalar(select(TreeRow.manifest).where(TreeRow.digest == digest))
        if manifest is not None:
            candidates -= _hashes(manifest)
    places: list[str] = []
    for batch in batches(sorted(one.hex() for one in candidates)):
        # A publisher that has seen one of them since has changed its row, and then the condition no longer holds.
        unseen = select(Blob.sha256, Blob.place).where(Blob.sha256.in_(batch), Blob.seen_at < seen_before)
        rows = session.execute(unseen.order_by(Blob.sha256).with_for_update()).all()
        if rows:
            gone = [row.sha256 for row in rows]
            session.execute(delete(Blob).where(Blob.sha256.in_(gone)).execution_options(synchronize_session=False))
            places += [row.place for row in rows]
    _forget_trees(session, sorted(dead), candidates)
    return places


def _forget_trees(session: Session, digests: list[str], candidates: set[bytes]) -> None:
    """Delete the rows of locked trees. One whose blobs could not all be deleted stays, as incoming, and is swept another time."""
    left: set[str] = set()
    for batch in batches(sorted(one.hex() for one in candidates)):
        left.update(session.scalars(select(Blob.sha256).where(Blob.sha256.in_(batch))))
    kept = []
    if left:
        for digest in digests:
            packed = session.scalar(select(TreeRow.manifest).where(TreeRow.digest == digest))
            if packed is not None and not {one.hex() for one in _hashes(packed)}.isdisjoint(left):
                kept.append(digest)
    gone = sorted(set(digests) - set(kept))
    for batch in batches(gone):
        statements.forget(session, batch)
        session.execute(delete(TreeRow).where(TreeRow.digest.in_(batch)).execution_options(synchronize_session=False))
    for batch in batches(kept):
        session.execute(
            update(TreeRow)
            .where(TreeRow.digest.in_(batch))
            .values(state=INCOMING, seen_at=database_now(session))
            .execution_options(synchronize_session=False)
        )


def _hashes(packed: bytes) -> set[bytes]:
    """Return the SHA-256 (32 bytes) of each file of a packed manifest, which was checked when it was stored."""
    _header, *lines = zlib.decompress(packed).splitlines()
    return {bytes.fromhex(line[:64].decode("ascii")) for line in lines}
