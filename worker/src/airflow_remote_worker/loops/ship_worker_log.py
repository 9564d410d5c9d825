"""Ships the daemon's own log file by file, and removes a finished file once central has all of it.

Logs nothing itself: a line about shipping would be one more line to ship.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import os
from pathlib import Path

import anyio
import anyio.to_thread

from airflow_remote_worker.clock import Clock
from airflow_remote_worker.errors import Refused, Rewind, Unreachable
from airflow_remote_worker.link.attempts import RETRIED_OF_WORKER, Attempts
from airflow_remote_worker.link.client import Link
from airflow_remote_worker.state.worker_log import WorkerLog

GATHER_S = 2.0
"""The least time between two requests: short enough for a reader who follows the log, long enough for a verbose daemon."""
CHUNK = 256_000
REFUSED_PAUSE_S = 300.0
LONGEST_PAUSE_S = 60.0


class ShipWorkerLogLoop:
    """Sends new lines to central. Makes no requests while there are no new lines."""

    def __init__(self, link: Link, clock: Clock, worker_log: WorkerLog) -> None:
        self.gzip = True
        self._link = link
        self._clock = clock
        self._log = worker_log
        self._wanted = anyio.Event()
        """Set while central accepts the log, as its session says."""
        self._position: tuple[Path, int] | None = None
        """Central's position; None: unknown, central must be asked."""

    def set_wanted(self, *, wanted: bool) -> None:
        """Note whether central accepts this log, as its newest session says."""
        if wanted:
            self._wanted.set()
        elif self._wanted.is_set():
            self._wanted = anyio.Event()
        self._position = None  # another central, or the same one restored from a backup

    async def run(self) -> None:
        """Ship the log, until cancelled."""
        news = _ThreadSafeEvent()
        self._log.on_line = news.set
        attempts = Attempts(self._link, self._clock, floor_s=1.0, ceiling_s=LONGEST_PAUSE_S)
        while True:
            await self._wanted.wait()
            try:
                if not await self._send_next():
                    await news.wait()
                attempts.reset()
                await self._clock.sleep(GATHER_S)
            except Refused:
                await self._clock.sleep(REFUSED_PAUSE_S)
            except RETRIED_OF_WORKER as error:
                await attempts.wait_after(error)
            except OSError:
                await self._clock.sleep(LONGEST_PAUSE_S)

    async def _send_next(self) -> bool:
        """Send one chunk, or remove a file that central has; return False if there is nothing to do."""
        files = self._log.files()
        if not files:
            return False
        oldest, is_finished = files[0], len(files) > 1
        if self._position is None or self._position[0] != oldest:
            self._position = oldest, await self._append(oldest, 0, b"")
            return True
        position = self._position[1]
        if position > _size(oldest):
            self._log.rename(oldest)  # a snapshot was restored; repeating lines is better than losing some
            return True
        chunk = await anyio.to_thread.run_sync(_read, oldest, position)
        if chunk:
            size = await self._append(oldest, position, chunk)
            if size == position:
                # Neither appended nor moved: without this, a faulty peer would be called in a tight loop.
                raise Unreachable(f"central did not accept this worker's own log from byte {size} on")
            self._position = oldest, size
        elif is_finished:
            oldest.unlink(missing_ok=True)
        else:
            return False
        return True

    async def _append(self, path: Path, offset: int, chunk: bytes) -> int:
        body = await anyio.to_thread.run_sync(gzip.compress, chunk, 4) if self.gzip and chunk else chunk
        try:
            return await self._link.append_worker_log(path.stem, offset, body, gzipped=self.gzip and bool(chunk))
        except Rewind as error:
            return error.size


class _ThreadSafeEvent:
    """An event that any thread may set. Create it in the event loop that waits for it."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._event = asyncio.Event()

    def set(self) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended, and shipping with it
            self._loop.call_soon_threadsafe(self._event.set)

    async def wait(self) -> None:
        await self._event.wait()
        self._event.clear()


def _read(path: Path, position: int) -> bytes:
    """Return whole lines, synced to disk first: central must not have lines that this disk loses in a power cut."""
    try:
        with path.open("rb") as file:
            file.seek(position)
            chunk = file.read(CHUNK)
            if chunk:
                os.fsync(file.fileno())
    except FileNotFoundError:
        return b""
    return chunk[: chunk.rfind(b"\n") + 1] or chunk


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
