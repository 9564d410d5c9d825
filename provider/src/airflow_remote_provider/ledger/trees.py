"""Trees and blobs: what is stored, and what is missing. :mod:`.sweep` deletes what nobody needs any more.

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
from sqlalchemy import delete, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from airflow_remote_provider.compat import database_now
from airflow_remote_provider.ledger.errors import LedgerError
from airflow_remote_provider.models import Blob, Job, TreeRow

T = TypeVar("T")

INCOMING, READY = "incoming", "ready"
BUNDLE = "bundle"
"""The kind of the trees of Dag bundles."""
RUNTIME = "runtime"
"""The kind of the trees of runtimes that central sends."""
RELEASE = "release"
"""The kind of the trees of releases of the worker's own software."""
SEEN_KEPT = timedelta(hours=1)
"""How long a blob or a tree that a publisher relied on is kept, whatever refers to it. A publisher that takes longer than this
from its first call to the last repeats its calls and loses nothing but time."""
SEEN_AGAIN_AFTER = timedelta(minutes=10)
"""A `seen_at` that is newer than this is not renewed: publishing one change of 20,000 files must not write 20,000 rows."""
BATCH = 500
"""Hashes in one statement. SQLite before 3.32 allows 999 parameters."""


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
    for batch in batches(sorted(missing)):
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
    for batch in batches(sorted(blobs, key=lambda blob: blob.sha256)):
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
    """Return whether an open job that is leased to this worker runs the tree, or in it."""
    leased = [state.value for state in JobState if state.is_leased]
    needed = or_(Job.tree == digest, Job.runtime == digest)
    query = select(Job.id).where(Job.worker_id == worker_id, Job.state.in_(leased), needed)
    return session.scalar(query.limit(1)) is not None


def stored(session: Session, sha256s: Iterable[str]) -> dict[str, StoredBlob]:
    """Return what is known of these blobs. A blob that is not stored is not in it."""
    found = {}
    for batch in batches(sorted(set(sha256s))):
        rows = session.execute(
            select(Blob.sha256, Blob.encoding, Blob.packed_size, Blob.size, Blob.place).where(Blob.sha256.in_(batch))
        )
        for sha256, encoding, packed_size, size, place in rows:
            found[sha256] = StoredBlob(Encoding(encoding), packed_size, size, place)
    return found


def text_hashes(session: Session, sha256s: Iterable[str]) -> dict[str, str]:
    """Return the MD5 of the text, as Airflow computes it, of those of these blobs that are Python files."""
    found: dict[str, str] = {}
    for batch in batches(sorted(set(sha256s))):
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


def unknown_places(session: Session, places: Iterable[str]) -> set[str]:
    """Return which of these places no blob has: their bytes were put by a process that ended before it could note them."""
    unknown = set(places)
    for batch in batches(sorted(unknown)):
        unknown.difference_update(session.scalars(select(Blob.place).where(Blob.place.in_(batch))))
    return unknown


def batches(items: Collection[T]) -> Iterator[list[T]]:
    rest = iter(items)
    while batch := list(islice(rest, BATCH)):
        yield batch
