"""Publishes Dag bundles: scans their files, stores what central lacks, and notes the tree in the ledger. Blocking, one thread."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from functools import partial
from queue import SimpleQueue
from typing import Any, Protocol, TypeVar

from airflow_remote_protocol.packs import LZMA_FROM_BYTES, Encoding, encode_blob
from airflow_remote_protocol.trees import Tree
from sqlalchemy.orm import Session

from airflow_remote_provider import compat
from airflow_remote_provider.compat import BundleSource, BundleUnavailable, Checkout, VersionGone
from airflow_remote_provider.ledger import bundles, publishing, trees
from airflow_remote_provider.ledger.bundles import PublishedBundle
from airflow_remote_provider.ledger.errors import LedgerError
from airflow_remote_provider.ledger.trees import BUNDLE, BlobsMissing, NewBlob, TreeGone
from airflow_remote_provider.packing.scan import IGNORE_FILE, Limits, Moved, ScanState, Unpublishable, read_file, scan
from airflow_remote_provider.stores.blobs import BlobStore

log = logging.getLogger(__name__)

T = TypeVar("T")

TRIES = 3
"""How often to begin again if files change, or the garbage collection takes blobs, while a tree is stored."""
BATCH_BLOBS = 200
BATCH_BYTES = 8 << 20
"""Blobs that one transaction stores: at most so many, and no further one beyond so many packed bytes."""
LONGEST_TEXT = 16 << 20
"""As the worker's limit for Dag files that it compares with central's."""


class Transaction(Protocol):
    """Runs a verb of the ledger in a transaction of its own; see :func:`.compat.in_transaction`."""

    def __call__(self, verb: Callable[[Session], T]) -> T: ...


class Result(Enum):
    """What became of an attempt to publish."""

    PUBLISHED = "published"
    UNCHANGED = "unchanged"
    FAILED = "failed"
    NOT_HERE = "not here"
    """The directory has none of the Dag files that Airflow has parsed of the bundle, so it is not the bundle's."""
    EMPTY = "empty"
    """The directory is empty, and Airflow has parsed nothing of the bundle: its first Dag is still to be written."""


@dataclass(frozen=True)
class Outcome:
    """The result of one attempt, for logs and users."""

    name: str
    version: str | None
    what: Result
    began: float
    """When the scan began, on the monotonic clock of this process."""
    tree: Tree | None = None
    trouble: str = ""
    """Why it failed; or what is wrong with a bundle that was published nevertheless."""
    stored_files: int = 0
    """Files that central lacked."""
    stored_bytes: int = 0
    """Their packed size."""


class Publisher:
    """Publishes bundles of *sources*. Keeps what it has scanned, so that the next scan reads changed files only."""

    def __init__(
        self,
        sources: Mapping[str, BundleSource],
        store: BlobStore,
        limits: Limits,
        *,
        who: str,
        has_to_match: bool = False,
        pause: Callable[[], None] = lambda: None,
        in_transaction: Transaction = compat.in_transaction,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """*who* names this process for users.

        With *has_to_match*, a directory that has none of the Dag files that Airflow has parsed of the bundle is not published: on
        a machine without the bundle's files, its path may be an empty directory.
        """
        self.sources = sources
        self.who = who
        self._store = store
        self._limits = limits
        self._has_to_match = has_to_match
        self._pause = pause
        self._in_transaction = in_transaction
        self._monotonic = monotonic
        self._states: dict[str, ScanState] = {}
        self._published: dict[str, tuple[str | None, str]] = {}
        """By bundle, the version and the tree of its last publication by this process."""
        self._troubles: dict[str, str] = {}
        self._packing = LowPriorityThread()

    def publish(self, name: str) -> Outcome:
        """Publish the newest files of a bundle. A failure is noted in the ledger, and the last good tree stays the newest.

        An unchanged bundle costs no statement: the caller notes it, together with others (:func:`.publishing.note_unchanged`).

        Raises:
            SQLAlchemyError: the database does not answer.
        """
        return self._attempt(name, None, lambda: self.sources[name].newest())

    def publish_version(self, name: str, version: str) -> Outcome:
        """Publish a version of a bundle that jobs need. If it does not exist, they fail with the reason.

        Raises:
            SQLAlchemyError: the database does not answer.
        """
        return self._attempt(name, version, lambda: self.sources[name].at(version))

    def forget(self, name: str) -> None:
        """Publish the bundle again at the next attempt, even if it is unchanged: another process has published another tree."""
        self._published.pop(name, None)

    def _attempt(self, name: str, version: str | None, open_files: Callable[[], AbstractContextManager[Checkout]]) -> Outcome:
        began = self._monotonic()
        try:
            with open_files() as checkout:
                outcome = self._publish_checkout(name, checkout, began, is_newest=version is None)
        except VersionGone as error:
            self._note_trouble(name, str(error), version)
            return Outcome(name, version, Result.FAILED, began, trouble=str(error))
        except (BundleUnavailable, Unpublishable, Moved, LedgerError, OSError) as error:
            text = str(error) if version is None else f"version {version}: {error}"
            if self._troubles.get(name) != text:
                self._note_trouble(name, text)
            return Outcome(name, version, Result.FAILED, began, trouble=text)
        if outcome.trouble:
            self._note_trouble(name, outcome.trouble)
        elif version is None and self._troubles.pop(name, None) is not None:
            log.info("The Dag bundle %r can be published again", name)
        return outcome

    def _publish_checkout(self, name: str, checkout: Checkout, began: float, *, is_newest: bool) -> Outcome:
        for left in reversed(range(TRIES)):
            known = self._states.get(name, ScanState()) if is_newest else ScanState()
            tree, state = scan(checkout.path, known, limits=self._limits, pause=self._pause)
            if is_newest:
                self._states[name] = state
            version, trouble = checkout.version, _restless(state)
            if is_newest and self._published.get(name) == (version, tree.digest):
                return Outcome(name, version, Result.UNCHANGED, began, tree, trouble)
            if self._has_to_match and (strange := self._judge(name, tree)) is not None:
                return Outcome(name, version, strange, began, tree)
            try:
                files, size = self._store_blobs(tree, state)
                self._note(name, version, tree, began, is_newest=is_newest)
            except (Moved, TreeGone, BlobsMissing):
                if not left:
                    raise
                continue
            if is_newest:
                self._published[name] = version, tree.digest
            return Outcome(name, version, Result.PUBLISHED, began, tree, trouble, files, size)
        raise AssertionError("the last try returns or raises")

    def _judge(self, name: str, tree: Tree) -> Result | None:
        """Return why *tree* may not be the bundle; None if it is: it has a Dag file that Airflow has parsed, or else any file."""
        parsed = self._in_transaction(lambda session: compat.parsed_dag_files(session, name))
        if parsed:
            return None if any(_has_file(tree, path) for path in parsed) else Result.NOT_HERE
        return None if tree.files else Result.EMPTY

    def _store_blobs(self, tree: Tree, state: ScanState) -> tuple[int, int]:
        """Store the files that central lacks; return their number and packed size.

        Raises:
            Moved: a file is no longer what was scanned.
            OSError: the store does not take them.
        """

        def begin(session: Session) -> set[str]:
            trees.begin_tree(session, tree, BUNDLE, self.who)
            return trees.missing_blobs(session, tree.sizes)

        missing = self._in_transaction(begin)
        paths: dict[str, str] = {}
        for entry in tree.entries:
            if entry.sha256 in missing and (entry.sha256 not in paths or entry.path.endswith(".py")):
                paths[entry.sha256] = entry.path  # of equal files a Python file: only their text has a hash
        size = 0
        for batch in self._packed(paths, state):
            self._put(batch)
            size += sum(len(blob.packed) for blob in batch)
        return len(paths), size

    def _packed(self, paths: Mapping[str, str], state: ScanState) -> Iterator[list[_Packed]]:
        """Yield the files at *paths*, by their SHA-256, packed and in batches."""
        batch: list[_Packed] = []
        size = 0
        for sha256, path in paths.items():
            content = read_file(path, state.seen[path])
            pack = partial(encode_blob, content)
            encoding, packed = self._packing.run(pack) if len(content) >= LZMA_FROM_BYTES else pack()
            batch.append(_Packed(sha256, len(content), encoding, packed, text_hash(path, content)))
            size += len(packed)
            self._pause()
            if len(batch) == BATCH_BLOBS or size >= BATCH_BYTES:
                yield batch
                batch, size = [], 0
        if batch:
            yield batch

    def _put(self, batch: list[_Packed]) -> None:
        """Store a batch. Bytes that no row names after a failure are removed by the store's own collection."""
        store = self._store
        if store.needs_session:

            def put(session: Session) -> None:
                new = [blob.placed(store.put(session, blob.sha256, blob.packed)) for blob in batch]
                store.delete(session, trees.add_blobs(session, new))

            self._in_transaction(put)
            return
        new = [blob.placed(store.put(None, blob.sha256, blob.packed)) for blob in batch]  # slow: not within a transaction
        store.delete(None, self._in_transaction(lambda session: trees.add_blobs(session, new)))

    def _note(self, name: str, version: str | None, tree: Tree, began: float, *, is_newest: bool) -> None:
        def publish(session: Session) -> bool:
            scanned_at = publishing.when_begun(session, lambda: timedelta(seconds=self._monotonic() - began))
            return bundles.publish(session, PublishedBundle(name, version, tree, scanned_at, self.who, is_newest))

        self._in_transaction(publish)

    def _note_trouble(self, name: str, text: str, version: str | None = None) -> None:
        if version is None:
            if self._troubles.get(name) != text:
                log.warning("The Dag bundle %r can't be published: %s", name, text)
            self._troubles[name] = text
        else:
            log.warning("Version %s of the Dag bundle %r can't be published: %s", version, name, text)
        self._in_transaction(lambda session: bundles.note_trouble(session, name, text, version, publisher=self.who))


@dataclass(frozen=True)
class _Packed:
    sha256: str
    size: int
    encoding: Encoding
    packed: bytes
    text_hash: str | None

    def placed(self, place: str) -> NewBlob:
        return NewBlob(self.sha256, self.size, self.encoding, len(self.packed), place, self.text_hash)


def text_hash(path: str, content: bytes) -> str | None:
    """Return the hash of a Python file's text as Airflow computes it for Dag files; None for any other file."""
    if not path.endswith(".py") or len(content) > LONGEST_TEXT:
        return None
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return None
    return compat.dag_source_hash(text.replace("\r\n", "\n").replace("\r", "\n"))  # as a file that is opened as text


def _has_file(tree: Tree, path: str) -> bool:
    """Return whether the tree has the Dag file *path*, or the archive that contains it."""
    parts = path.split("/")
    return any(tree.get("/".join(parts[:count])) is not None for count in range(1, len(parts) + 1))


def _restless(state: ScanState) -> str:
    if not state.restless:
        return ""
    named = ", ".join(state.restless[:3])
    return f"it is published, but these files change all the time: {named}; name them in {IGNORE_FILE} if Dags don't need them"


class LowPriorityThread:
    """Runs work that takes seconds of CPU without Python's lock, such as packing a large file, and gives way to other threads.

    Not for work that holds that lock, such as scanning, or for much small work: other threads would wait for the lock of a thread
    that does not get the CPU. With 2,000 small files and ten times more processes than cores, an event loop waited for 1.2 s.
    A daemon thread, so that it never delays the end of its process.
    """

    def __init__(self) -> None:
        self._work: SimpleQueue[tuple[Callable[[], Any], Future[Any]]] = SimpleQueue()
        self._is_started = False

    def run(self, work: Callable[[], T]) -> T:
        """Return the result of *work*; wait for it."""
        if not self._is_started:
            threading.Thread(target=self._serve, name="remote-pack", daemon=True).start()
            self._is_started = True
        done: Future[T] = Future()
        self._work.put((work, done))
        return done.result()

    def _serve(self) -> None:
        if sys.platform == "linux":  # elsewhere priorities are those of processes
            with suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)
        while True:
            work, done = self._work.get()
            try:
                done.set_result(work())
            except BaseException as error:
                done.set_exception(error)
