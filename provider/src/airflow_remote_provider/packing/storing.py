"""Stores the files of a scanned tree that central lacks. Bundles and runtimes share it; who publishes notes the tree itself."""

from __future__ import annotations

import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue
from typing import Any, Protocol, TypeVar

from airflow_remote_protocol.packs import LZMA_FROM_BYTES, Encoding, encode_blob
from airflow_remote_protocol.trees import Tree
from sqlalchemy.orm import Session

from airflow_remote_provider import compat
from airflow_remote_provider.ledger import trees
from airflow_remote_provider.ledger.trees import NewBlob
from airflow_remote_provider.packing.scan import ScanState, read_file
from airflow_remote_provider.stores.blobs import BlobStore

T = TypeVar("T")

BATCH_BLOBS = 200
BATCH_BYTES = 8 << 20
"""Blobs that one transaction stores: at most so many, and no further one beyond so many packed bytes."""
LONGEST_TEXT = 16 << 20
"""As the worker's limit for Dag files that it compares with central's."""


class Transaction(Protocol):
    """Runs a verb of the ledger in a transaction of its own; see :func:`.compat.in_transaction`."""

    def __call__(self, verb: Callable[[Session], T]) -> T: ...


class Packing:
    """Reads and packs files of scanned trees, in batches. Blocking, one thread.

    So many large files are packed at once: *packers*.
    """

    def __init__(self, pause: Callable[[], None] = lambda: None, packers: int = 1) -> None:
        self._pause = pause
        self._packers = packers
        self._threads = LowPriorityThreads(packers)

    def pack(self, tree: Tree, wanted: Collection[str], state: ScanState) -> Iterator[list[PackedBlob]]:
        """Yield those blobs of the tree that are *wanted*, packed and in batches.

        Raises:
            Moved: a file is no longer what was scanned.
        """
        batch: list[PackedBlob] = []
        size = 0
        for blob in self._packed_one_by_one(paths_of(tree, wanted), state):
            batch.append(blob)
            size += len(blob.packed)
            self._pause()
            if len(batch) == BATCH_BLOBS or size >= BATCH_BYTES:
                yield batch
                batch, size = [], 0
        if batch:
            yield batch

    def _packed_one_by_one(self, paths: Mapping[str, str], state: ScanState) -> Iterator[PackedBlob]:
        """Yield the packed files, small ones as soon as they are read, and large ones when they are packed."""
        packing: deque[Future[PackedBlob]] = deque()
        for sha256, path in paths.items():
            content = read_file(path, state.seen[path])
            pack = partial(_pack, sha256, path, content)
            if len(content) < LZMA_FROM_BYTES:
                yield pack()
                continue
            packing.append(self._threads.begin(pack))
            if len(packing) > self._packers:
                yield packing.popleft().result()
        while packing:
            yield packing.popleft().result()


def paths_of(tree: Tree, wanted: Collection[str]) -> dict[str, str]:
    """Return a path of each *wanted* blob that the tree has; of equal files a Python file: only their text has a hash."""
    paths: dict[str, str] = {}
    for entry in tree.entries:
        if entry.sha256 in wanted and (entry.sha256 not in paths or entry.path.endswith(".py")):
            paths[entry.sha256] = entry.path
    return paths


class Storing:
    """Stores the blobs of trees of one kind. Blocking, one thread."""

    def __init__(
        self,
        store: BlobStore,
        kind: str,
        *,
        who: str,
        pause: Callable[[], None] = lambda: None,
        packers: int = 1,
        in_transaction: Transaction = compat.in_transaction,
    ) -> None:
        """*who* names this process for users. So many large files are packed at once: *packers*."""
        self._store = store
        self._kind = kind
        self._who = who
        self._in_transaction = in_transaction
        self._packing = Packing(pause, packers)

    def store(self, tree: Tree, state: ScanState) -> tuple[int, int]:
        """Store the files that central lacks; return their number and packed size.

        Raises:
            Moved: a file is no longer what was scanned.
            OSError: the store does not take them.
        """

        def begin(session: Session) -> set[str]:
            trees.begin_tree(session, tree, self._kind, self._who)
            return trees.missing_blobs(session, tree.sizes)

        missing = self._in_transaction(begin)
        size = 0
        for batch in self._packing.pack(tree, missing, state):
            self._put(batch)
            size += sum(len(blob.packed) for blob in batch)
        return len(missing), size

    def _put(self, batch: Sequence[PackedBlob]) -> None:
        put(self._store, batch, self._in_transaction)


def put(store: BlobStore, batch: Sequence[PackedBlob], in_transaction: Transaction = compat.in_transaction) -> None:
    """Store a batch. Bytes that no row names after a failure are removed by the store's own collection."""
    if store.needs_session:

        def put_all(session: Session) -> None:
            new = [blob.placed(store.put(session, blob.sha256, blob.packed)) for blob in batch]
            store.delete(session, trees.add_blobs(session, new))

        in_transaction(put_all)
        return
    new = [blob.placed(store.put(None, blob.sha256, blob.packed)) for blob in batch]  # slow: not within a transaction
    store.delete(None, in_transaction(lambda session: trees.add_blobs(session, new)))


@dataclass(frozen=True)
class PackedBlob:
    """A file of a tree, in the encoding in which it is stored."""

    sha256: str
    size: int
    encoding: Encoding
    packed: bytes
    text_hash: str | None

    def placed(self, place: str) -> NewBlob:
        return NewBlob(self.sha256, self.size, self.encoding, len(self.packed), place, self.text_hash)


def _pack(sha256: str, path: str, content: bytes) -> PackedBlob:
    encoding, packed = encode_blob(content)
    return PackedBlob(sha256, len(content), encoding, packed, text_hash(path, content))


def text_hash(path: str, content: bytes) -> str | None:
    """Return the hash of a Python file's text as Airflow computes it for Dag files; None for any other file."""
    if not path.endswith(".py") or len(content) > LONGEST_TEXT:
        return None
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return None
    return compat.dag_source_hash(text.replace("\r\n", "\n").replace("\r", "\n"))  # as a file that is opened as text


class LowPriorityThreads:
    """Run work that takes seconds of CPU without Python's lock, such as packing a large file, and give way to other threads.

    Not for work that holds that lock, such as scanning, or for much small work: other threads would wait for the lock of a thread
    that does not get the CPU. With 2,000 small files and ten times more processes than cores, an event loop waited for 1.2 s.
    Daemon threads, so that they never delay the end of their process.
    """

    def __init__(self, count: int = 1) -> None:
        self._work: SimpleQueue[tuple[Callable[[], Any], Future[Any]]] = SimpleQueue()
        self._missing = count

    def begin(self, work: Callable[[], T]) -> Future[T]:
        """Have a thread do *work*; return its future result."""
        if self._missing:
            self._missing -= 1
            threading.Thread(target=self._serve, name="remote-pack", daemon=True).start()
        done: Future[T] = Future()
        self._work.put((work, done))
        return done

    def _serve(self) -> None:
        if sys.platform == "linux":  # elsewhere priorities are those of processes
            with suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), min(19, os.getpriority(os.PRIO_PROCESS, 0) + 10))
        while True:
            work, done = self._work.get()
            try:
                done.set_result(work())
            except BaseException as error:
                done.set_exception(error)
