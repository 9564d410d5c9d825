"""Plans packs, keeps recent plans, and reads any stretch of a pack from the blob store, a window at a time.

A reader holds one window, and no thread or connection between two. A plan is shared by all readers of a pack.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from airflow_remote_protocol.packs import Encoding, Layout, Part, Stored, decode_chunks, lay_out, lay_out_blobs
from sqlalchemy.orm import Session

from airflow_remote_provider.api.pool import LedgerPool
from airflow_remote_provider.ledger import bundles, trees
from airflow_remote_provider.ledger.trees import StoredBlob
from airflow_remote_provider.stores.blobs import BlobLost, BlobStore, Piece
from airflow_remote_provider.stores.blobs.opened import BlobStores

log = logging.getLogger(__name__)

T = TypeVar("T")

WINDOW = 256 * 1024
"""Bytes that are read at once. Large blobs are cut at multiples of it, which is how the database stores them: a window then reads
no part twice. A reader holds less than 1 MiB."""
MOST_PIECES = 500
"""Blobs that are read at once: what the store reads in one statement."""
MOST_BLOBS = 100_000
"""Blobs in the plans that are kept, at some 500 bytes each. One plan may have more."""
MOST_PLANS = 100
"""Plans that are kept. Each has a manifest or its edits: some 100 KB for 2,000 files."""
FILE_THREADS = 8
"""For a store of files, whose answers may take as long as an object store wants. The ledger's threads must not wait for them."""


@dataclass(frozen=True)
class Plan:
    """A pack, and where its blobs are."""

    layout: Layout
    blobs: dict[str, StoredBlob]

    @property
    def etag(self) -> str:
        """The value of the header, with its quotes."""
        return f'"{self.layout.etag}"'


@dataclass(frozen=True)
class PackRequest:
    """Which pack a worker asked for."""

    tree: str
    base: str | None
    lzma: bool


class Packs:
    """The packs of one API process."""

    def __init__(self, pool: LedgerPool, stores: BlobStores) -> None:
        self._pool = pool
        self._stores = stores
        self._plans: OrderedDict[PackRequest, Plan] = OrderedDict()
        self._being_made: dict[PackRequest, asyncio.Task[Plan | None]] = {}
        self._file_threads = ThreadPoolExecutor(FILE_THREADS, thread_name_prefix="remote-blobs")

    async def plan(self, asked: PackRequest, *, before_making: Callable[[], None]) -> Plan | None:
        """Return the plan of a pack; None if its tree is not ready. *before_making* is called unless the plan is known.

        A base that central does not know is no base.
        """
        if (known := self._plans.get(asked)) is not None:
            self._plans.move_to_end(asked)
            return known
        before_making()
        making = self._being_made.get(asked)
        if making is None:
            making = self._being_made[asked] = asyncio.create_task(self._make(asked), name="remote-plan-pack")
            making.add_done_callback(lambda _: self._being_made.pop(asked, None))
        return await asyncio.shield(making)  # others may wait for it

    async def _make(self, asked: PackRequest) -> Plan | None:
        plan = await self._pool.trees.call(_plan, asked)
        if plan is not None:
            self._plans[asked] = plan
            while len(self._plans) > 1 and (len(self._plans) > MOST_PLANS or self._blobs() > MOST_BLOBS):
                self._plans.popitem(last=False)
        return plan

    def _blobs(self) -> int:
        return sum(len(one.blobs) for one in self._plans.values())

    async def plan_blobs(self, digest: str, wanted: Collection[str], *, lzma: bool) -> Plan | None:
        """Return the plan of a pack of single blobs; None if the tree is not ready. Blobs that the tree lacks are left out."""
        return await self._pool.trees.call(_plan_blobs, digest, wanted, lzma)

    def forget(self, plan: Plan) -> None:
        """Forget a plan that names places whose bytes were deleted."""
        for asked in [asked for asked, known in self._plans.items() if known is plan]:
            del self._plans[asked]

    async def note_lost(self, digest: str, lost: BlobLost) -> None:
        """Note that bytes of a tree are gone; its publisher stores them again at its next scan."""
        log.error("A worker can't be sent the code %s until its publisher has stored it again: %s", digest[:12], lost)
        await self._pool.trees.call(bundles.lose_tree, digest, blob=(lost.sha256, lost.place))

    async def read(self, plan: Plan, start: int, end: int) -> AsyncIterator[bytes]:
        """Yield the bytes of a pack from *start* to *end* (exclusive).

        Raises:
            BlobLost: the store does not have them where the plan says.
        """
        gathered: list[bytes | Piece] = []
        size = 0
        for part, first, last in plan.layout.slice(start, end):
            blob = None if part.data is not None else plan.blobs[part.sha256]
            if blob is not None and blob.encoding is not part.encoding:
                yield await self._fetch(gathered)
                gathered, size = [], 0
                async for chunk in self._decoded(part.sha256, blob, first, last):
                    yield chunk
                continue
            while first < last:
                until = min(last, (first // WINDOW + 1) * WINDOW)
                if size + until - first > WINDOW or len(gathered) >= 2 * MOST_PIECES:  # each blob after its record
                    yield await self._fetch(gathered)
                    gathered, size = [], 0
                gathered.append(_stretch(part, blob, first, until))
                size += until - first
                first = until
        yield await self._fetch(gathered)

    async def _fetch(self, gathered: Sequence[bytes | Piece]) -> bytes:
        """Return the bytes of a window."""
        pieces = [one for one in gathered if isinstance(one, Piece)]
        found: dict[int, bytes] = {}
        for store, numbers in self._stores.split_pieces(pieces):
            some = [pieces[number] for number in numbers]
            found.update(zip(numbers, await self._in_thread(store, partial(self._read_here, store, some)), strict=True))
        if len(gathered) == len(pieces) == 1:
            return found[0]
        read = iter([found[number] for number in range(len(pieces))])
        return b"".join(next(read) if isinstance(one, Piece) else one for one in gathered)

    async def _in_thread(self, store: BlobStore, work: Callable[[], T]) -> T:
        if store.needs_session:
            return await self._pool.trees.blocking(work)
        return await asyncio.get_running_loop().run_in_executor(self._file_threads, work)

    def _read_here(self, store: BlobStore, pieces: Sequence[Piece]) -> list[bytes]:
        if store.needs_session:
            return self._pool.here(store.read, pieces)
        return store.read(None, pieces)

    async def _decoded(self, sha256: str, blob: StoredBlob, first: int, last: int) -> AsyncIterator[bytes]:
        """Yield the content of a blob from *first* to *last*, decoded from its beginning, for a worker without its encoding."""
        [(store, _)] = self._stores.split_pieces([Piece(sha256, blob.place, 0, 0)])
        content = decode_chunks(blob.encoding, self._packed(store, sha256, blob), blob.size)
        at = 0
        while at < last:
            chunk = await self._in_thread(store, lambda: next(content, b""))
            if not chunk:
                raise BlobLost(sha256, blob.place)
            begin, at = at, at + len(chunk)
            wanted = chunk[max(0, first - begin) : max(0, last - begin)]
            if wanted:
                yield wanted

    def _packed(self, store: BlobStore, sha256: str, blob: StoredBlob) -> Iterator[bytes]:
        for begin in range(0, blob.packed_size, WINDOW):
            piece = Piece(sha256, blob.place, begin, min(begin + WINDOW, blob.packed_size))
            yield self._read_here(store, [piece])[0]

    def close(self) -> None:
        self._file_threads.shutdown(wait=False, cancel_futures=True)


def _stretch(part: Part, blob: StoredBlob | None, first: int, until: int) -> bytes | Piece:
    if blob is not None:
        return Piece(part.sha256, blob.place, first, until)
    assert part.data is not None
    return part.data[first:until]


def _plan(session: Session, asked: PackRequest) -> Plan | None:
    if not trees.is_ready(session, asked.tree):
        return None
    tree = trees.load_tree(session, asked.tree)
    base = None if asked.base is None else trees.load_tree(session, asked.base)
    if tree is None:
        return None
    lacking = set(tree.sizes) - (set() if base is None else set(base.sizes))
    blobs = trees.stored(session, lacking)
    if blobs.keys() != lacking:
        bundles.lose_tree(session, asked.tree)
        return None
    return Plan(lay_out(tree, base, _lengths(blobs), lzma=asked.lzma), blobs)


def _plan_blobs(session: Session, digest: str, wanted: Collection[str], lzma: bool) -> Plan | None:
    tree = trees.load_tree(session, digest)
    if tree is None:
        return None
    ours = set(wanted) & tree.sizes.keys()
    blobs = trees.stored(session, ours)
    if blobs.keys() != ours:
        bundles.lose_tree(session, digest)
        return None
    return Plan(lay_out_blobs(tree, ours, _lengths(blobs), lzma=lzma), blobs)


def _lengths(blobs: dict[str, StoredBlob]) -> dict[str, Stored]:
    return {sha256: Stored(Encoding(blob.encoding), blob.packed_size) for sha256, blob in blobs.items()}
