"""The reading end of a job's outbox: the writes of its task while central was unreachable, and how many of them are delivered.

Owns `outbox.done` (the delivered position, so that a restart repeats at most one write), `outbox.refused` (writes that central
refused, until they can be noted in the task's log) and `outbox.lost` (the first refused write that its task takes for written;
the task fails because of it). `local/outbox_file.py` owns the file's format.
"""

from __future__ import annotations

import os
import zlib
from pathlib import Path

import anyio
import anyio.to_thread

from airflow_remote_worker.errors import Damaged
from airflow_remote_worker.local import frames
from airflow_remote_worker.local.outbox_file import DONE, HEAD, NAME, delivered
from airflow_remote_worker.state.files import write

REFUSED = "outbox.refused"
LOST = "outbox.lost"


class OutboxReader:
    """Reads the outbox of the job in *directory*. One reader at a time."""

    def __init__(self, directory: Path) -> None:
        self.changed = anyio.Event()
        """Set when there may be more; :meth:`next` makes a new one."""
        self._path = directory / NAME
        self._done = directory / DONE
        self._refused = directory / REFUSED
        self._lost = directory / LOST
        self._position = min(delivered(directory), self._size())
        self._end = self._position
        self._emptied = anyio.Event()

    @property
    def waits(self) -> bool:
        """Whether the outbox holds a write that has not been delivered."""
        return self._size() > self._position

    def notice(self) -> None:
        """Note that the shim has, or may have, added a write."""
        self.changed.set()

    async def until_empty(self) -> None:
        """Return when every write in the outbox has been delivered."""
        while self.waits:
            await self._emptied.wait()

    def next(self) -> frames.Call | None:
        """Return the oldest call that was not delivered, or None. An incomplete record is ignored: its task was not answered.

        Raises:
            Damaged: the disk did not keep the record; the records after it can't be read either.
        """
        self.changed = anyio.Event()
        if not self.waits:
            return None
        with self._path.open("rb") as file:
            file.seek(self._position)
            head = file.read(HEAD.size)
            if len(head) < HEAD.size:
                return None
            length, checksum = HEAD.unpack(head)
            body = file.read(length) if length <= frames.MAX_FRAME else b""
        if length <= frames.MAX_FRAME and len(body) < length:
            return None
        try:
            call = frames.unpack(body) if zlib.crc32(body) == checksum else None
        except frames.BrokenFrame:
            call = None
        if not isinstance(call, frames.Call):
            raise Damaged(f"{self._path} is damaged from byte {self._position} on")
        self._end = self._position + HEAD.size + length
        return call

    async def acknowledge(self) -> None:
        """Note that central has, or will never have, the call that :meth:`next` returned last.

        Raises:
            OSError: the position can't be stored; it holds for this daemon, and the next daemon may repeat the call.
        """
        await self._move(self._end)

    async def give_up(self) -> None:
        """Skip the rest, which can't be delivered. Raises: OSError, as :meth:`acknowledge`."""
        await self._move(self._size())

    def refuse(self, line: str, *, is_lost: bool) -> None:
        """Keep *line* for the task's log. *is_lost*: the task must not succeed. Raises: OSError."""
        line = line.replace("\n", " ")
        fd = os.open(self._refused, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            os.write(fd, line.encode("utf-8", "replace") + b"\n")
        finally:
            os.close(fd)
        if is_lost and not self._lost.exists():
            # Durable before the write counts as delivered, or a power cut would let the success through.
            write(self._lost, line.encode("utf-8", "replace"), durable=True)

    @property
    def lost(self) -> str:
        """The refusal of the first lost write; empty if no write was lost."""
        try:
            return self._lost.read_text("utf-8", "replace")
        except FileNotFoundError:
            return ""

    @property
    def lost_at(self) -> float | None:
        """When the first lost write was refused, in seconds since the epoch; None: no write was lost."""
        try:
            return self._lost.stat().st_mtime
        except FileNotFoundError:
            return None

    def refused(self) -> list[str]:
        """Return the lines that :meth:`refuse` kept."""
        try:
            return self._refused.read_text("utf-8", "replace").splitlines()
        except FileNotFoundError:
            return []

    def delete_refused(self) -> None:
        """Delete the lines that :meth:`refuse` kept: they are in the task's log now."""
        self._refused.unlink(missing_ok=True)

    async def _move(self, position: int) -> None:
        self._position = position
        try:
            await anyio.to_thread.run_sync(lambda: write(self._done, str(position).encode(), durable=True))
        finally:
            # After the position is stored: by that the shim decides to send its next write to us again.
            if not self.waits:
                self._emptied.set()
                self._emptied = anyio.Event()

    def _size(self) -> int:
        try:
            return self._path.stat().st_size
        except FileNotFoundError:
            return 0
