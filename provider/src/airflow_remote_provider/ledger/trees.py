"""Trees and blobs: what is stored, what is missing, and what nobody needs any more.

A publisher calls, in this order, :func:`begin_tree`, :func:`missing_blobs`, the store's `put` and :func:`add_blobs` for each
missing blob, and :func:`.bundles.publish`. The order is what makes the garbage collection safe: each blob is named by the
manifest of a tree that has a row, and what a publisher relies on was seen within :data:`SEEN_KEPT`, so it is not deleted.
"""

from __future__ import annotations

import threading
import zlib
from collections import OrderedDict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import islice
from typing import NamedTuple, TypeVar

from airflow_remote_protocol.packs import Encoding
from airflow_remote_protocol.states import JobState
from airflow_remote_protocol.trees import Tree
from sqlalchemy import and_, delete, func, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from airflow_remote_provider.compat import database_now
from airflow_remote_provider.ledger.errors import LedgerError
from airflow_remote_provider.models import Blob, BundleRow, Edition, Job, TreeRow

T = TypeVar("T")

INCOMING, READY = "incoming", "ready"
BUNDLE = "bundle"
"""The kind of the trees of Dag bundles."""
RUNTIME = "runtime"
"""The kind of the trees of runtimes that central sends."""
SEEN_KEPT = timedelta(hours=1)
"""How long a blob or a tree that a publisher relied on is kept, whatever refers to it. A publisher that takes longer than this
from its first call to the last repeats its calls and loses nothing but time."""
SEEN_AGAIN_AFTER = timedelta(minutes=10)
"""A `seen_at` that is newer than this is not renewed: publishing one change of 20,000 files must not write 20,000 rows."""
BATCH = 500
"""Hashes in one statement. SQLite before 3.32 allows 999 parameters."""
SWEPT_FILES = 50_000
"""Files of the trees that one call of :func:`sweep` deletes; one tree can be larger. Bounds its memory to about 20 MB."""
EDITIONS_KEPT = 3
"""Editions of a bundle that are kept, whatever their age, beside the current one."""
MOST_EDITIONS = 100
"""Editions of a bundle that are kept for `[remote] tree_days`. A bundle that changes every minute would otherwise have thousands
of manifests."""
OPEN = [state.value for state in JobState if not state.is_ended]


class TreeGone(LedgerError):
    """The tree has no row: it was never begun, or the garbage collection has deleted it. Begin it again."""


class BlobsMissing(LedgerError):
    """Blobs of the tree are not stored. Put them, and publish again."""

    def __init__(self, digest: str, missing: set[str]) -> None:
        super().__init__(
            f"{len(missing)} files of tree {digest[:12]} are not stored, among them {min(missing)[:12]}; publish again"
        )
        self.missing = missing


@dataclass(frozen=True)
class NewBlob:
    """A blob whose bytes a store has put at *place*."""

    sha256: str
    size: int
    encoding: Encoding
    packed_size: int
    place: str
    text_hash: str | None = None
    """As `models.Blob.text_hash`."""


class StoredBlob(NamedTuple):
    """What the ledger knows of a stored blob. Sizes in bytes."""

    encoding: Encoding
    packed_size: int
    size: int
    place: str


def begin_tree(session: Session, tree: Tree, kind: str, by: str) -> None:
    """Note that a publisher relies on *tree* from now on, and that its blobs are about to be stored. A repeat is harmless.

    *by* names the publisher.
    """
    now = database_now(session)
    if _see_tree(session, tree.digest, now):
        return
    row = TreeRow(
        digest=tree.digest,
        kind=kind,
        files=tree.files,
        bytes=tree.bytes,
        manifest=zlib.compress(tree.manifest, 6),
        state=INCOMING,
        made_by=by[:250],
        created_at=now,
        seen_at=now,
    )
    try:
        with session.begin_nested():
            session.add(row)
            session.flush()
    except IntegrityError:  # another publisher has begun the same tree at this moment
        _see_tree(session, tree.digest, now)


def _see_tree(session: Session, digest: str, now: datetime) -> bool:
    seen = session.execute(
        update(TreeRow).where(TreeRow.digest == digest).values(seen_at=now).execution_options(synchronize_session=False)
    )
    return bool(seen.rowcount)  # type: ignore[attr-defined]


def missing_blobs(session: Session, sha256s: Iterable[str]) -> set[str]:
    """Return which of these blobs are not stored. The others are kept for at least 50 minutes from now.

    Call it after :func:`begin_tree` of the tree that names them, in a later transaction or in the same one.
    """
    missing = set(sha256s)
    now = database_now(session)
    for batch in _batches(sorted(missing)):
        # Before the question: what is deleted at this moment waits for this statement, or this statement waits for it.
        session.execute(
            update(Blob)
            .where(Blob.sha256.in_(batch), Blob.seen_at < now - SEEN_AGAIN_AFTER)
            .values(seen_at=now)
            .execution_options(synchronize_session=False)
        )
        missing.difference_update(session.scalars(select(Blob.sha256).where(Blob.sha256.in_(batch))))
    return missing


def add_blobs(session: Session, blobs: Sequence[NewBlob]) -> list[str]:
    """Note blobs whose bytes are stored. Return the places of those that are known already: the caller deletes their bytes.

    With the store in the database, call it in the transaction of the store's `put`.
    """
    now = database_now(session)
    unused = []
    for batch in _batches(sorted(blobs, key=lambda blob: blob.sha256)):
        known = set(session.scalars(select(Blob.sha256).where(Blob.sha256.in_([blob.sha256 for blob in batch]))))
        new = {blob.sha256: blob for blob in batch if blob.sha256 not in known}
        if not _add(session, list(new.values()), now):  # another publisher adds some of them at this moment
            new = {sha256: blob for sha256, blob in new.items() if _add(session, [blob], now)}
        unused += [blob.place for blob in batch if new.get(blob.sha256) is not blob]
    return unused


def _add(session: Session, blobs: Sequence[NewBlob], now: datetime) -> bool:
    rows = [
        Blob(
            sha256=blob.sha256,
            size=blob.size,
            packed_size=blob.packed_size,
            encoding=int(blob.encoding),
            place=blob.place,
            text_hash=blob.text_hash,
            seen_at=now,
        )
        for blob in blobs
    ]
    try:
        with session.begin_nested():
            session.add_all(rows)
            session.flush()
    except IntegrityError:
        return False
    return True


def finish_tree(session: Session, tree: Tree) -> None:
    """Set *tree* to ready, and lock its row until the transaction ends: it can't be deleted before something refers to it.

    Raises:
        TreeGone: begin it again.
        BlobsMissing: put them first.
    """
    row = session.scalar(select(TreeRow).where(TreeRow.digest == tree.digest).with_for_update())
    if row is None:
        raise TreeGone(f"tree {tree.digest[:12]} was not begun, or too long ago; publish it again")
    if missing := missing_blobs(session, {entry.sha256 for entry in tree.entries}):
        raise BlobsMissing(tree.digest, missing)
    row.state, row.seen_at = READY, database_now(session)
    session.flush()


def unfinish_tree(session: Session, digest: str, *, blob: tuple[str, str] | None = None) -> None:
    """Set a tree that is incomplete to incoming; forget its *blob* (SHA-256 and place), whose bytes are gone."""
    session.execute(
        update(TreeRow).where(TreeRow.digest == digest).values(state=INCOMING).execution_options(synchronize_session=False)
    )
    if blob is not None:
        sha256, place = blob
        gone = delete(Blob).where(Blob.sha256 == sha256, Blob.place == place)
        session.execute(gone.execution_options(synchronize_session=False))


def is_ready(session: Session, digest: str) -> bool:
    """Return whether all blobs of the tree are stored."""
    return session.scalar(select(TreeRow.state).where(TreeRow.digest == digest)) == READY


def is_pinned_by(session: Session, worker_id: str, digest: str) -> bool:
    """Return whether an open job that is leased to this worker runs the tree."""
    leased = [state.value for state in JobState if state.is_leased]
    query = select(Job.id).where(Job.worker_id == worker_id, Job.state.in_(leased), Job.tree == digest)
    return session.scalar(query.limit(1)) is not None


def stored(session: Session, sha256s: Iterable[str]) -> dict[str, StoredBlob]:
    """Return what is known of these blobs. A blob that is not stored is not in it."""
    found = {}
    for batch in _batches(sorted(set(sha256s))):
        rows = session.execute(
            select(Blob.sha256, Blob.encoding, Blob.packed_size, Blob.size, Blob.place).where(Blob.sha256.in_(batch))
        )
        for sha256, encoding, packed_size, size, place in rows:
            found[sha256] = StoredBlob(Encoding(encoding), packed_size, size, place)
    return found


def text_hashes(session: Session, sha256s: Iterable[str]) -> dict[str, str]:
    """Return the MD5 of the text, as Airflow computes it, of those of these blobs that are Python files."""
    found: dict[str, str] = {}
    for batch in _batches(sorted(set(sha256s))):
        rows = session.execute(select(Blob.sha256, Blob.text_hash).where(Blob.sha256.in_(batch), Blob.text_hash.is_not(None)))
        found.update((sha256, text_hash) for sha256, text_hash in rows if text_hash is not None)
    return found


def load_tree(session: Session, digest: str) -> Tree | None:
    """Return a tree that has a row, ready or incoming; None if it has none. Recently loaded ones come from memory."""
    if (known := _loaded.get(digest)) is not None:
        return known
    packed = session.scalar(select(TreeRow.manifest).where(TreeRow.digest == digest))
    if packed is None:
        return None
    tree = Tree.parse(zlib.decompress(packed))
    _loaded.put(tree)
    return tree


@dataclass
class _LoadedTrees:
    """The trees that were loaded last. Trees never change, so nothing here can be out of date; threads share it."""

    most_files: int
    _trees: OrderedDict[str, Tree] = field(default_factory=OrderedDict)
    _files: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def get(self, digest: str) -> Tree | None:
        with self._lock:
            if digest in self._trees:
                self._trees.move_to_end(digest)
            return self._trees.get(digest)

    def put(self, tree: Tree) -> None:
        with self._lock:
            if tree.digest in self._trees:
                return
            self._trees[tree.digest] = tree
            self._files += tree.files
            while self._files > self.most_files and len(self._trees) > 1:
                self._files -= self._trees.popitem(last=False)[1].files

    def clear(self) -> None:
        with self._lock:
            self._trees.clear()
            self._files = 0


_loaded = _LoadedTrees(most_files=100_000)
"""About 40 MB at most."""


def forget_loaded() -> None:
    """Forget the loaded trees: for tests, which empty the tables."""
    _loaded.clear()


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
    the last *tree_days* days, the trees of open jobs, and whatever a publisher has relied on within :data:`SEEN_KEPT`. *now* is
    the database's clock. Call it again until nothing is left.
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
    return sum(_sweep_editions_of(session, kind, name, before) for kind, name in crowded)


def _sweep_editions_of(session: Session, kind: str, name: str, before: datetime) -> int:
    """Delete old editions of one bundle, and versions that no job wants any more and nobody has published. Return how many."""
    # The lock under which editions are published and wanted (`bundles`).
    current = session.scalar(select(BundleRow.tree).where(BundleRow.name == name).with_for_update()) if kind == BUNDLE else None
    rows = session.execute(
        select(Edition.id, Edition.version, Edition.tree, Edition.published_at, Edition.wanted_at)
        .where(Edition.kind == kind, Edition.name == name)
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
    for batch in _batches(old):
        session.execute(delete(Edition).where(Edition.id.in_(batch)).execution_options(synchronize_session=False))
    return len(old)


def _lock_unused(session: Session, seen_before: datetime) -> dict[str, bytes]:
    """Lock a batch of trees that nothing refers to; return their packed manifests by digest.

    They are looked for first, and checked again under the lock: what refers to a tree locks its row before.
    """
    unused = and_(
        TreeRow.seen_at < seen_before,
        ~select(Edition.id).where(Edition.tree == TreeRow.digest).exists(),
        ~select(BundleRow.name).where(BundleRow.tree == TreeRow.digest).exists(),
        ~select(Job.id).where(Job.tree == TreeRow.digest, Job.state.in_(OPEN)).exists(),
    )
    found: list[str] = []
    files = 0
    oldest_first = select(TreeRow.digest, TreeRow.files).where(unused).order_by(TreeRow.seen_at, TreeRow.digest).limit(BATCH)
    for digest, count in session.execute(oldest_first):
        if found and files + count > SWEPT_FILES:
            break
        found.append(digest)
        files += count
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
    return {digest: manifest for digest, manifest in session.execute(query)}


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
    for batch in _batches(sorted(one.hex() for one in candidates)):
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
    for batch in _batches(sorted(one.hex() for one in candidates)):
        left.update(session.scalars(select(Blob.sha256).where(Blob.sha256.in_(batch))))
    kept = []
    if left:
        for digest in digests:
            packed = session.scalar(select(TreeRow.manifest).where(TreeRow.digest == digest))
            if packed is not None and not {one.hex() for one in _hashes(packed)}.isdisjoint(left):
                kept.append(digest)
    gone = sorted(set(digests) - set(kept))
    for batch in _batches(gone):
        session.execute(delete(TreeRow).where(TreeRow.digest.in_(batch)).execution_options(synchronize_session=False))
    for batch in _batches(kept):
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


def unknown_places(session: Session, places: Iterable[str]) -> set[str]:
    """Return which of these places no blob has: their bytes were put by a process that ended before it could note them."""
    unknown = set(places)
    for batch in _batches(sorted(unknown)):
        unknown.difference_update(session.scalars(select(Blob.place).where(Blob.place.in_(batch))))
    return unknown


def _batches(items: Collection[T]) -> Iterator[list[T]]:
    rest = iter(items)
    while batch := list(islice(rest, BATCH)):
        yield batch
