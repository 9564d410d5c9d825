"""Makes sure that a tree is on this machine, the code of a job or its runtime: finds, fetches, verifies, repairs and evicts.

Composes :mod:`.trees` (the disk) and :mod:`.fetch` (the network), and decides when each is used. However many jobs wait for a
tree, it is fetched once, as long as one of them waits. A tree that something holds is never evicted: callers hold the trees of
jobs from their offer until their directory is closed, those of trigger hosts while they run, and those of the runtimes that
central wants here.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import BinaryIO, NamedTuple, TypeVar

import anyio
import anyio.abc
from airflow_remote_protocol import packs
from airflow_remote_protocol.messages import MAX_BLOBS_WANTED, Bundle, RuntimeRef, TreeRef, WantedRelease
from airflow_remote_protocol.packs import BadPack, PackReader, read_blobs
from airflow_remote_protocol.trees import Tree

from airflow_remote_worker import system
from airflow_remote_worker.clock import Clock
from airflow_remote_worker.code.fetch import Incoming, PackFetcher
from airflow_remote_worker.code.trees import Filling, NewTree, TreeStore
from airflow_remote_worker.daemon_thread import run_in_daemon_thread
from airflow_remote_worker.errors import Outdated, Refused, Superseded, Unreachable
from airflow_remote_worker.state.free_space import FULL, NoRoom

log = logging.getLogger(__name__)

T = TypeVar("T")

CHECK_EVERY_S = 60.0
"""How often the files of a tree that is used are compared with their recorded state."""
CHECK_WITHIN_S = 60.0
"""A check of many files that takes longer does not return: the disk does not answer."""
UNPACK_WITHIN_S = 3600.0
HAS_LZMA = packs.lzma is not None
FETCHES_AT_ONCE = 2
"""Each takes up to 10 MB of memory, and they share the line."""
TRIES = 3
"""For the same content, if it arrives damaged."""
BLOBS_BYTES = 16 << 20
"""Size of single blobs that are requested at once: this answer can't be resumed."""
TIDY_EVERY_S = 3600.0
FILE_BYTES = 2048
"""The disk space of a file beyond its content, on average."""


class CodeUnavailable(Exception):
    """The code can't be had here now: the offer must be declined. The text says why and what to do."""


class BlobDamaged(BadPack):
    """A file's content arrives damaged each time."""


OF_RUNTIMES = "runtime:"
OF_RELEASES = "release:"


class Origin(NamedTuple):
    """What a tree is."""

    name: str
    """Trees of one name differ little, so one is fetched as the difference to another."""
    version: str
    text: str
    """For users: `bundle 'etl'`."""

    @classmethod
    def of_bundle(cls, bundle: Bundle) -> Origin:
        return cls(bundle.name, bundle.version or "", f"bundle {bundle.name!r}")

    @classmethod
    def of_runtime(cls, ref: RuntimeRef) -> Origin:
        return cls(OF_RUNTIMES + ref.name, str(ref.serial), f"runtime {ref.name!r} {ref.serial}")

    @classmethod
    def of_release(cls, wanted: WantedRelease) -> Origin:
        return cls(f"{OF_RELEASES}worker", str(wanted.serial), f"release {wanted.version} (serial {wanted.serial})")


@dataclass(eq=False)
class _Work:
    """A tree that is being fetched or repaired."""

    waiting: dict[object, Callable[[str], None]] = field(default_factory=dict)
    """Who waits for it, and where to report its progress."""
    done: anyio.Event = field(default_factory=anyio.Event)
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    error: Exception | None = None
    detail: str = ""

    def report(self, detail: str) -> None:
        if detail != self.detail:
            self.detail = detail
            for note in list(self.waiting.values()):
                note(detail)


class Limits(NamedTuple):
    """What the code may take of its disk, in bytes."""

    total: int
    least_free: int


class BundleCode:
    """The trees of this worker."""

    def __init__(
        self,
        store: TreeStore,
        fetcher: PackFetcher,
        limits: Limits,
        clock: Clock,
        *,
        free: Callable[[Path], tuple[int, int]] = system.free_space,
    ) -> None:
        self.on_change: Callable[[], None] = _do_nothing
        """Called when the set of trees has changed."""
        self.trees: list[str] = []
        """The trees of bundles that are here, the last used first. Known once :meth:`run` has started."""
        self.all: frozenset[str] = frozenset()
        """All trees that are here."""
        self._store = store
        self._fetcher = fetcher
        self._incoming: Incoming = fetcher.incoming
        self._limits = limits
        self._clock = clock
        self._free = free
        self._holders: dict[object, set[str]] = {}
        self._works: dict[str, _Work] = {}
        self._checked: dict[str, float] = {}
        self._checking: dict[str, anyio.Lock] = {}
        self._fetching = anyio.CapacityLimiter(FETCHES_AT_ONCE)
        self._tasks: anyio.abc.TaskGroup | None = None

    async def run(self, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Run the fetches, and remove parts of packs that nobody has needed for a day, until cancelled."""
        await _in_thread(self._prepare)
        async with anyio.create_task_group() as self._tasks:
            await self._look()
            task_status.started()
            while True:
                with contextlib.suppress(OSError):
                    await _in_thread(partial(self._incoming.drop_old, but=set(self._works)))
                await self._clock.sleep(TIDY_EVERY_S * (0.9 + 0.2 * self._clock.chance()))

    def _prepare(self) -> None:
        self._store.prepare()
        self._incoming.prepare()

    # Pins

    def hold(self, holder: object, digest: str) -> None:
        """Keep the tree *digest* from now on, until *holder* releases all that it holds."""
        self._holders.setdefault(holder, set()).add(digest)

    def release(self, holder: object) -> None:
        """Note that *holder* needs no tree any more."""
        self._holders.pop(holder, None)

    # Using

    async def ensure(
        self, ref: TreeRef, origin: Origin, holder: object, note: Callable[[str], None] = lambda detail: None
    ) -> Path:
        """Return the directory of a tree's files, fetched and verified if necessary. *holder* holds it from now on.

        Args:
            note: called with the progress (`code 43 %`), and with an empty text at the end.

        Raises:
            CodeUnavailable: the code can't be had here.
            NoRoom, OSError: the disk has no room for it, or fails.
            TimeoutError: the disk does not answer.
        """
        self.hold(holder, ref.digest)
        while not await self._is_ready(ref.digest):
            work = self._works.get(ref.digest) or self._begin(ref, origin)
            work.waiting[holder] = note
            note(work.detail)
            try:
                await work.done.wait()
            finally:
                del work.waiting[holder]
                note("")
                if not work.waiting and not work.done.is_set():
                    log.info("code %s: nothing waits for it any more; the fetch ends", ref.digest[:12])
                    self._works.pop(ref.digest, None)
                    work.scope.cancel()
            if work.error is not None:
                raise work.error
        return self._store.files_of(ref.digest)

    async def _is_ready(self, digest: str) -> bool:
        """Return whether the tree is here and undamaged. Files are compared at most every :data:`CHECK_EVERY_S`."""
        if digest in self._works:
            return False
        async with self._checking.setdefault(digest, anyio.Lock()):
            now = self._clock.monotonic()
            checked_at = self._checked.get(digest)
            if checked_at is not None and now - checked_at < CHECK_EVERY_S:
                return True
            if not await _in_thread(partial(self._check, digest), within_s=CHECK_WITHIN_S):
                return False
            self._checked[digest] = now
            return True

    def _check(self, digest: str) -> bool:
        tree = self._store.load(digest)
        if tree is None or self._store.check(tree):
            return False
        self._store.note_use(digest)
        return True

    def recheck(self, digest: str) -> None:
        """Compare the tree's files at the next use: one of them is missing."""
        self._checked.pop(digest, None)

    def _begin(self, ref: TreeRef, origin: Origin) -> _Work:
        assert self._tasks is not None, "the code is not running"
        work = self._works[ref.digest] = _Work()
        self._tasks.start_soon(self._do, work, ref, origin, name=f"code {ref.digest[:12]}")
        return work

    async def _do(self, work: _Work, ref: TreeRef, origin: Origin) -> None:
        with work.scope:
            try:
                async with self._fetching:
                    await self._obtain(work, ref, origin)
            except (Superseded, Refused, Outdated) as error:
                work.error = CodeUnavailable(f"central does not give this worker the code of {origin.text}: {error}")
            except BadPack as error:
                await _in_thread(partial(self._incoming.drop, ref.digest))
                work.error = CodeUnavailable(
                    f"the code of {origin.text} arrived damaged {TRIES} times ({error}): a proxy changes it, or "
                    "central's store of code is damaged; nothing was run"
                )
            except OSError as error:
                if isinstance(error, NoRoom) or error.errno in FULL:
                    with contextlib.suppress(OSError):
                        await _in_thread(partial(self._incoming.drop, ref.digest))
                work.error = error
            finally:
                if self._works.get(ref.digest) is work:
                    del self._works[ref.digest]
                self.release(work)
                work.done.set()
        with contextlib.suppress(OSError):
            await self._evict()

    # Fetching

    async def _obtain(self, work: _Work, ref: TreeRef, origin: Origin) -> None:
        """Make the tree complete and correct. Raises: BadPack: it arrived damaged too often; and as the fetcher."""
        tree = await _in_thread(partial(self._store.load, ref.digest))
        if tree is None:
            await self._make(work, ref, origin)
        else:
            await self._repair(work, tree)
        self._checked[ref.digest] = self._clock.monotonic()
        await self._look()

    async def _make(self, work: _Work, ref: TreeRef, origin: Origin) -> None:
        base = await _in_thread(partial(self._choose_base, ref.digest, origin.name))
        for tries_left in reversed(range(TRIES)):
            self.hold(work, base)

            # With a base, the size of what is new follows from the pack only.
            new = 0 if base else ref.bytes + ref.files * FILE_BYTES

            async def check_room(pack_bytes: int, new: int = new) -> None:
                await self._make_room(pack_bytes + new)

            await check_room(0)
            path = await self._fetcher.fetch(
                ref.digest, base, lzma=HAS_LZMA, check_room=check_room, note=lambda here, all_: work.report(_progress(here, all_))
            )
            try:
                await self._unpack(path, ref.digest, origin)
            except BlobDamaged:
                raise
            except BadPack as error:
                log.warning("code %s: %s; fetching it again", ref.digest[:12], error)
                await _in_thread(partial(self._incoming.drop, ref.digest))
                base = ""
                if not tries_left:
                    raise
            else:
                break
        await _in_thread(partial(self._incoming.drop, ref.digest))

    def _choose_base(self, digest: str, name: str) -> str:
        """Return the base of the part that is here, if that tree still is, else the newest tree of that name; empty: none."""
        begun = self._incoming.base_of(digest)
        if begun and not self._store.has(begun):
            self._incoming.drop(digest)
        elif begun or self._incoming.pack(digest).exists():
            return begun
        return self._store.newest_of(name) or ""

    async def _unpack(self, path: Path, digest: str, origin: Origin) -> None:
        """Make the tree from its pack. Raises: BadPack: the pack, or the same content three times, is damaged."""

        def begin() -> tuple[PackReader, NewTree, BinaryIO]:
            file = path.open("rb")
            try:
                reader = PackReader(file, digest=digest, bases=self._store.load)
                return reader, self._store.make(reader.tree, origin.name, origin.version), file
            except BaseException:
                file.close()
                raise

        def fill(stop: Callable[[], bool]) -> None:
            with file:
                if base is not None:
                    made.link_from(self._store.files_of(base.digest), base, stop=stop)
                with contextlib.suppress(BadPack):  # what it lacks is requested below
                    made.add(reader.blobs(), stop=stop)

        reader, made, file = await _in_thread(begin)
        base = reader.base
        with _discarding(made) as stop:
            linked = base.sizes if base else {}
            await self._make_room(sum(size + FILE_BYTES for sha256, size in reader.tree.sizes.items() if sha256 not in linked))
            await _in_thread(partial(fill, stop))
            await self._fill(made, reader.tree, stop)
            await _in_thread(made.complete)

    async def _repair(self, work: _Work, tree: Tree) -> None:
        """Replace the files of *tree* that are missing or damaged."""
        damaged = await _in_thread(partial(self._store.check, tree))
        if not damaged:
            return
        names = ", ".join(entry.path for entry in damaged[:5])
        log.warning(
            "code %s: %d files were changed or removed on this machine (%s); replacing them",
            tree.digest[:12],
            len(damaged),
            names,
        )
        work.report("code")
        await self._make_room(sum(entry.size + FILE_BYTES for entry in damaged))
        filling = await _in_thread(partial(self._store.repair, tree, damaged))
        with _discarding(filling) as stop:
            await self._fill(filling, tree, stop)

    async def _fill(self, filling: Filling, tree: Tree, stop: Callable[[], bool]) -> None:
        """Request the contents that are still missing. Raises: BlobDamaged: the same content three times."""
        tries: dict[str, int] = {}
        while missing := filling.missing:
            wanted = _first(missing)
            for sha256 in wanted:
                tries[sha256] = tries.get(sha256, 0) + 1
                if tries[sha256] > TRIES:
                    name = next(entry.path for entry in tree.entries if entry.sha256 == sha256)
                    raise BlobDamaged(f"the file {name} has not the SHA-256 {sha256[:12]}…")
            path = await self._request_blobs(tree.digest, wanted)
            if path is not None:
                await _in_thread(partial(_add_from, filling, path, tree, set(wanted), stop))
            else:
                await self._fill_from_pack(filling, tree, stop)

    async def _request_blobs(self, digest: str, wanted: list[str]) -> Path | None:
        """Return a file with single blobs; None if the answer is cut each time: it can't be continued."""
        retries = self._fetcher.make_retries()
        cuts = 0
        while cuts < TRIES:
            try:
                return await self._fetcher.fetch_blobs(digest, wanted, lzma=HAS_LZMA)
            except Unreachable as error:
                cuts += error.was_cut
                await retries.wait_after(error)
        return None

    async def _fill_from_pack(self, filling: Filling, tree: Tree, stop: Callable[[], bool]) -> None:
        """Fetch the whole pack, which can be continued after each cut, for the contents that are missing."""
        digest = tree.digest
        await _in_thread(partial(self._incoming.drop, digest))
        path = await self._fetcher.fetch(digest, "", lzma=HAS_LZMA, check_room=self._make_room, note=lambda here, total: None)
        await _in_thread(partial(_add_from_pack, filling, path, digest, stop))
        await _in_thread(partial(self._incoming.drop, digest))

    # Room

    async def free(self, missing: int) -> None:
        """Remove trees that nothing holds, the longest unused first, to free *missing* bytes of their disk."""
        await self._evict(free=missing)

    async def _make_room(self, needed: int) -> None:
        """Make room for *needed* bytes. Raises: NoRoom."""
        if (short := await _in_thread(partial(self._missing, needed))) > 0:
            await self._evict(free=short)
            if await _in_thread(partial(self._missing, needed)) > 0:
                raise NoRoom(
                    f"disk full: code needs {needed / 1e6:.0f} MB in {self._incoming.root.parent}, and "
                    f"{self._limits.least_free / 1e6:.0f} MB must stay free (min_free_mb); make room there, or set code.path to "
                    "a directory on another disk"
                )

    def _missing(self, needed: int) -> int:
        return needed + self._limits.least_free - self._free(self._incoming.root)[0]

    async def _evict(self, *, free: int = 0) -> None:
        """Remove unused trees, until all take at most `code.total_mb` and *free* bytes are freed."""
        pinned = {*self._works, *(digest for held in self._holders.values() for digest in held)}
        evicted = await _in_thread(partial(self._store.evict, pinned=pinned, most=self._limits.total, free=free))
        if evicted:
            log.info("code: removed %d trees that no job uses, to make room", len(evicted))
            for digest in evicted:
                self._checked.pop(digest, None)
                self._checking.pop(digest, None)
            await self._look()

    async def _look(self) -> None:
        held = await _in_thread(self._store.held)
        self.trees = [
            tree.digest for tree in held if not (tree.about and tree.about.bundle.startswith((OF_RUNTIMES, OF_RELEASES)))
        ]
        before, self.all = self.all, frozenset(tree.digest for tree in held)
        if before != self.all:
            self.on_change()


def _add_from(filling: Filling, path: Path, tree: Tree, wanted: set[str], stop: Callable[[], bool]) -> None:
    try:
        with path.open("rb") as file, contextlib.suppress(BadPack):  # what it lacks is requested again
            filling.add(read_blobs(file, tree, wanted), stop=stop)
    finally:
        path.unlink(missing_ok=True)


def _add_from_pack(filling: Filling, path: Path, digest: str, stop: Callable[[], bool]) -> None:
    with path.open("rb") as file, contextlib.suppress(BadPack):
        filling.add(PackReader(file, digest=digest, bases=lambda _: None).blobs(), stop=stop)


def _first(missing: dict[str, int]) -> list[str]:
    """Return the contents to request at once."""
    wanted: list[str] = []
    total = 0
    for sha256, size in missing.items():
        total += size
        if wanted and (total > BLOBS_BYTES or len(wanted) == MAX_BLOBS_WANTED):
            break
        wanted.append(sha256)
    return wanted


def _progress(here: int, total: int) -> str:
    return f"code {here * 100 // total} %" if total else f"code {here / 1e6:.1f} MB"


@contextlib.contextmanager
def _discarding(filling: Filling) -> Iterator[Callable[[], bool]]:
    """Remove what *filling* has not used at the end. Yield a function that returns true from then on.

    If the context is left while a thread still works on it, that thread ends soon, and what it leaves is removed then.
    """
    has_ended = threading.Event()
    try:
        yield has_ended.is_set
    finally:
        has_ended.set()
        threading.Thread(target=filling.discard, name="discard code", daemon=True).start()


async def _in_thread(call: Callable[[], T], *, within_s: float = UNPACK_WITHIN_S) -> T:
    return await run_in_daemon_thread(call, within_s=within_s, name="code")


def _do_nothing() -> None:
    """The default listener."""
