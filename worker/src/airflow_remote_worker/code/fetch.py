"""Fetches packs from central: resumes at any byte, also after kill -9, and limits the rate. It does not read their content.

`<code>/incoming/<tree>.pack` is what has arrived; its size is the offset at which the next request begins. `<tree>.json` says
which pack it is (:class:`Note`): a part of another pack is never continued.

The first request is for the whole rest. After a cut the rest is requested in windows: proxies that limit the size or the duration
of an answer, or that buffer it, let small ones pass.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

import msgspec

from airflow_remote_worker.clock import Clock
from airflow_remote_worker.daemon_thread import run_in_daemon_thread
from airflow_remote_worker.errors import Damaged, Unreachable
from airflow_remote_worker.state import files

log = logging.getLogger(__name__)

T = TypeVar("T")

LEAST_WINDOW = 1 << 20
MOST_WINDOW = 8 << 20
"""Bytes of one request after a cut. Proxies limit answers to a few MB, if at all."""
WIDEN_WITHIN_S = 15.0
"""A window that took longer is not doubled: common time limits of proxies begin at 30 s."""
WRITE_BYTES = 256 * 1024
"""Written to the disk at once. More takes memory, less takes threads."""
WRITE_WITHIN_S = 300.0
KEPT_S = 86400.0
"""How long a part of a pack is kept that nobody needs."""


class Note(msgspec.Struct, frozen=True):
    """`<tree>.json`: the pack of which a part is here."""

    base: str
    """The tree on which the request builds; empty: on none."""
    etag: str
    lzma: bool
    size: int
    """Of the whole pack; 0: unknown."""


@dataclass(frozen=True)
class PackAnswer:
    """Central's answer to a request for a pack."""

    status: int
    """200: the whole pack. 206: a part. 416: there is nothing at that offset."""
    etag: str
    start: int
    """Offset of the answer's first byte."""
    total: int
    """Size of the whole pack; 0: unknown."""
    chunks: AsyncIterator[bytes]


class PackSource(Protocol):
    """Where packs come from. Implemented by :class:`~..link.client.Link`."""

    def fetch_pack(
        self, digest: str, *, base: str, lzma: bool, start: int, end: int | None, etag: str
    ) -> AbstractAsyncContextManager[PackAnswer]:
        """Request the bytes from *start* to *end* (exclusive) of a pack; *etag*: only if it is still that one.

        Raises:
            Unreachable: central did not answer; also while the chunks are read.
            Superseded, Refused, Outdated: central gives this worker no such tree.
        """

    def fetch_blobs(self, digest: str, sha256s: list[str], *, lzma: bool) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """Request single blobs of a tree. Raises: as :meth:`fetch_pack`."""


class Retries(Protocol):
    """The waits between the attempts of one fetch."""

    async def wait_after(self, error: Exception) -> None: ...

    def reset(self) -> None: ...


class RateLimit:
    """Bytes per second that all fetches together may take on average. 0 kbit/s: no limit."""

    def __init__(self, kbit_s: float, clock: Clock) -> None:
        self._bytes_s = kbit_s * 1000 / 8
        self._clock = clock
        self._free_at = 0.0

    async def take(self, size: int) -> None:
        """Wait until *size* more bytes, which have just arrived, fit the rate."""
        if not self._bytes_s:
            return
        now = self._clock.monotonic()
        # Unused time is not saved up: a burst would delay the worker's other messages.
        self._free_at = max(self._free_at, now) + size / self._bytes_s
        await self._clock.sleep(self._free_at - now)


class Incoming:
    """The directory of unfinished packs. Its methods block."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def prepare(self) -> None:
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.root.chmod(0o700)

    def pack(self, digest: str) -> Path:
        return self.root / f"{digest}.pack"

    def open(self, digest: str, base: str, *, lzma: bool) -> Partial:
        """Return the part of a pack that is here. If it builds on another base that *base*, it is continued nevertheless."""
        path, notes = self.pack(digest), self.root / f"{digest}.json"
        try:
            note = files.read(Note, notes)
        except (FileNotFoundError, Damaged):
            note = Note(base, "", lzma, 0)
        if note.lzma and not lzma:
            note = Note(base, "", lzma, 0)
        if not path.exists() or not note.etag:
            note = Note(base, "", lzma, 0)
        opened = Partial(path, notes, note)
        if not note.etag:
            opened.restart(note)
        return opened

    def base_of(self, digest: str) -> str:
        """Return the base of the part that is here; empty if it builds on none."""
        try:
            return files.read(Note, self.root / f"{digest}.json").base
        except (FileNotFoundError, Damaged):
            return ""

    def drop(self, digest: str) -> None:
        for path in self.root.glob(f"{digest}.*"):
            path.unlink(missing_ok=True)

    def drop_old(self, *, but: set[str], older_than_s: float = KEPT_S) -> None:
        """Remove parts that have not grown for a day, except those of the trees in *but*."""
        newest: dict[str, float] = {}
        for path in self.root.iterdir():
            with contextlib.suppress(OSError):
                digest = path.name.partition(".")[0]
                newest[digest] = max(newest.get(digest, 0.0), path.stat().st_mtime)
        for digest, at in newest.items():
            if digest not in but and time.time() - at > older_than_s:
                self.drop(digest)


class Partial:
    """A part of a pack. Its methods block.

    The file is opened for each write. A thread that hangs in one when its fetch is cancelled holds no descriptor of another file.
    """

    def __init__(self, path: Path, notes: Path, note: Note) -> None:
        self.path = path
        self.note = note
        self.size = path.stat().st_size if path.exists() else 0
        self._notes = notes

    @property
    def is_complete(self) -> bool:
        return bool(self.note.size) and self.size == self.note.size

    def append(self, data: bytes) -> None:
        """Write *data* at the end. If an earlier write of the same bytes is still under way, nothing changes."""
        write_at(self.path, self.size, data)
        self.size += len(data)

    def restart(self, note: Note) -> None:
        """Drop what is here; what follows belongs to the pack *note*."""
        self.path.unlink(missing_ok=True)
        create(self.path)
        self.size = 0
        self.describe(note)

    def describe(self, note: Note) -> None:
        self.note = note
        files.store(self._notes, note)


def create(path: Path) -> None:
    """Create an empty file for this user only, or empty the one that is there."""
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600))


def write_at(path: Path, offset: int, data: bytes) -> None:
    """Write *data* to an existing file."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        view = memoryview(data)
        while view:
            written = os.pwrite(fd, view, offset)
            view, offset = view[written:], offset + written
    finally:
        os.close(fd)


class PackFetcher:
    """Fetches packs into *incoming*."""

    def __init__(
        self, incoming: Incoming, source: PackSource, clock: Clock, *, kbit_s: float, make_retries: Callable[[], Retries]
    ) -> None:
        self.incoming = incoming
        self._source = source
        self._clock = clock
        self._limit = RateLimit(kbit_s, clock)
        self.make_retries = make_retries

    async def fetch(
        self,
        digest: str,
        base: str,
        *,
        lzma: bool,
        check_room: Callable[[int], Awaitable[None]],
        note: Callable[[int, int], None],
    ) -> Path:
        """Fetch the pack of a tree, however long central is away; return the file.

        Args:
            base: a tree that this worker has; empty: none.
            check_room: called with the number of bytes that are still to come; raises if they don't fit.
            note: called with the number of bytes that are here, and that of all (0: unknown).

        Raises:
            Superseded, Refused, Outdated: central gives this worker no such tree.
            OSError: the disk is full or fails. What has arrived stays.
        """
        opened = await _in_thread(partial(self.incoming.open, digest, base, lzma=lzma))
        await self._continue(digest, opened, check_room, note)
        return opened.path

    async def _continue(
        self, digest: str, opened: Partial, check_room: Callable[[int], Awaitable[None]], note: Callable[[int, int], None]
    ) -> None:
        retries = self.make_retries()
        window: int | None = None
        while not opened.is_complete:
            before, began = opened.size, self._clock.monotonic()
            try:
                if await self._request(digest, opened, window, check_room, note):
                    return
                if opened.size <= before and not opened.is_complete:
                    raise Unreachable("central's answer to a request for code was empty", was_cut=True)
            except Unreachable as error:
                if error.was_cut:
                    window = LEAST_WINDOW
                if opened.size > before:
                    retries.reset()
                level = logging.INFO if error.was_cut else logging.DEBUG  # the poll loop reports outages
                log.log(level, "code %s: %d bytes are here; %s; retrying", digest[:12], opened.size, error)
                await retries.wait_after(error)
            else:
                retries.reset()
                if window and self._clock.monotonic() - began < WIDEN_WITHIN_S:
                    window = min(2 * window, MOST_WINDOW)

    async def _request(
        self,
        digest: str,
        opened: Partial,
        window: int | None,
        check_room: Callable[[int], Awaitable[None]],
        note: Callable[[int, int], None],
    ) -> bool:
        """Make one request; return whether the pack is complete. Raises: as :meth:`fetch`, and Unreachable."""
        known, start = opened.note, opened.size
        async with self._source.fetch_pack(
            digest,
            base=known.base,
            lzma=known.lzma,
            start=start,
            end=start + window if window else None,
            etag=known.etag if start else "",
        ) as answer:
            changed = msgspec.structs.replace(known, etag=answer.etag, size=answer.total)
            if answer.status == 416 and start and (answer.total, answer.etag) == (start, known.etag):
                await _in_thread(partial(opened.describe, changed))
                return True
            if answer.status == 416 or (
                answer.status == 206 and (answer.start != start or (start and answer.etag != known.etag))
            ):
                # Not what is here: another pack by now. The next request is for all of it.
                await _in_thread(partial(opened.restart, msgspec.structs.replace(known, etag="", size=0)))
                raise Unreachable(f"central's pack has changed after {start} bytes of it were fetched; starting again")
            if answer.status == 200:
                await _in_thread(partial(opened.restart, changed))
            elif changed != known:
                await _in_thread(partial(opened.describe, changed))
            await check_room(max(0, answer.total - opened.size))
            await self._receive(answer, opened, note)
            if not answer.total:  # the answer has no length, and has ended regularly
                await _in_thread(partial(opened.describe, msgspec.structs.replace(opened.note, size=opened.size)))
            elif opened.size > answer.total:
                await _in_thread(partial(opened.restart, changed))
                raise Unreachable("central sent more of a pack than it announced; starting again")
        return opened.is_complete

    async def _receive(self, answer: PackAnswer, opened: Partial, note: Callable[[int, int], None]) -> None:
        waiting = bytearray()

        async def flush() -> None:
            data = bytes(waiting)
            waiting.clear()
            await _in_thread(partial(opened.append, data))
            note(opened.size, opened.note.size)

        try:
            async for chunk in answer.chunks:
                waiting += chunk
                if len(waiting) >= WRITE_BYTES:
                    await flush()
                await self._limit.take(len(chunk))
        except Unreachable:
            if waiting:
                await flush()
            raise
        if waiting:
            await flush()

    async def fetch_blobs(self, digest: str, sha256s: list[str], *, lzma: bool) -> Path:
        """Fetch single blobs of a tree; return the file with them, which the caller removes.

        Raises:
            Unreachable: central did not answer, or the answer was cut.
            Superseded, Refused, Outdated, OSError: as :meth:`fetch`.
        """
        path = self.incoming.root / f"{digest}.blobs"
        await _in_thread(partial(create, path))
        opened = Partial(path, path, Note("", "", lzma, 0))
        async with self._source.fetch_blobs(digest, sha256s, lzma=lzma) as chunks:
            await self._receive(PackAnswer(200, "", 0, 0, chunks), opened, lambda size, total: None)
        return path


async def _in_thread(call: Callable[[], T]) -> T:
    return await run_in_daemon_thread(call, within_s=WRITE_WITHIN_S, name="write code")
