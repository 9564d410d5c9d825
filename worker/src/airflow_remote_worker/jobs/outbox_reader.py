"""The reading end of a job's outbox: what its task wrote while central was out of reach, and how far that has been delivered.

`local/outbox_file.py` has the file's format. Owns `outbox.done` (what was delivered, so that a restart repeats at most
one write), `outbox.refused` (what central would not have, until it can be told in the task's log) and `outbox.lost` (the first
write that the task believes to be written and that central refused; the task fails for it).
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
    """Of the job in *directory*. One reader at a time."""

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
        """Whether something is in it that has not been delivered."""
        return self._size() > self._position

    def notice(self) -> None:
        """Its shim has put something in, or may have."""
        self.changed.set()

    async def until_empty(self) -> None:
        """Return when all that is in it has been delivered."""
        while self.waits:
            await self._emptied.wait()

    def next(self) -> frames.Call | None:
        """Return the oldest call that was not delivered; None if there is none (yet). A record cut off was never promised.

        Raises:
            Damaged: the disk did not keep what was written; nothing behind it can be read either.
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
        """What :meth:`next` returned last is with central, or will never be.

        Raises:
            OSError: that can't be stored; it holds for this daemon, and the next one may repeat the call.
        """
        await self._move(self._end)

    async def give_up(self) -> None:
        """Nothing that is left can be delivered. Raises: OSError, as :meth:`acknowledge`."""
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
        """The refusal of the first write that was lost; empty if none was."""
        try:
            return self._lost.read_text("utf-8", "replace")
        except FileNotFoundError:
            return ""

    @property
    def lost_at(self) -> float | None:
        """When that was refused, in seconds since the epoch; None: nothing was lost."""
        try:
            return self._lost.stat().st_mtime
        except FileNotFoundError:
            return None

    def refused(self) -> list[str]:
        """Return the lines that were kept."""
        try:
            return self._refused.read_text("utf-8", "replace").splitlines()
        except FileNotFoundError:
            return []

    def forget_refused(self) -> None:
        """They are in the task's log."""
        self._refused.unlink(missing_ok=True)

    async def _move(self, position: int) -> None:
        self._position = position
        try:
            await anyio.to_thread.run_sync(lambda: write(self._done, str(position).encode(), durable=True))
        finally:
            # After the mark, so that the shim, which goes by it, sends its next write to us again.
            if not self.waits:
                self._emptied.set()
                self._emptied = anyio.Event()

    def _size(self) -> int:
        try:
            return self._path.stat().st_size
        except FileNotFoundError:
            return 0
