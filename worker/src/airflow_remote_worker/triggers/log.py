"""The part of one trigger's log that central has not taken, on disk: `log.<offset>`, whole lines of UTF-8.

What central has taken is removed at once, so a trigger that waits for months needs no room.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

MOST = 4 * 1024 * 1024
"""Bytes that wait for central: an outage of a day for a trigger that logs a line every few seconds."""
BITE = 200_000
"""Bytes of one piece. Longer than any line (`shim/triggers/logs.py` cuts them at 128 KiB)."""


class WaitingLog:
    """Of the trigger in *directory*."""

    __slots__ = ("_directory", "base", "is_refused", "lost", "size")

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.is_refused = False
        """Central takes no more of this log."""
        self.lost = 0
        """Lines that did not fit and are not marked yet."""
        self.base = 0
        """The offset in the lease's log at which what waits begins."""
        self.size = 0
        """How many bytes wait."""

    def find(self) -> None:
        """Look up what an earlier daemon has left."""
        bases = self._found()
        if bases:
            self.base = max(bases)
            for base in bases - {self.base}:
                self._path(base).unlink(missing_ok=True)  # the daemon was cut off in `advance`
            self.size = self._path(self.base).stat().st_size

    def append(self, text: bytes, *, gap: bytes = b"") -> None:
        """Append whole lines; a missing newline at the end is added.

        What does not fit is counted; *gap* is the mark to write for what was lost before.

        Raises:
            OSError: the disk won't take it.
        """
        if self.is_refused:
            return
        if self.size + len(gap) + len(text) > MOST:
            self.lost += text.count(b"\n")
            return
        body = gap + text.decode("utf-8", "replace").encode() + (b"" if text.endswith(b"\n") else b"\n")
        descriptor = os.open(self._path(self.base), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            written = os.write(descriptor, body)
            if written < len(body):
                os.ftruncate(descriptor, self.size)
                raise OSError(28, "no room for the whole of it")
        finally:
            os.close(descriptor)
        self.size += len(body)
        self.lost = 0

    def bite(self, most: int = BITE) -> bytes:
        """Return what comes next, whole lines; empty if there is nothing.

        Raises:
            OSError: it can't be read.
        """
        if not self.size or self.is_refused:
            return b""
        with self._path(self.base).open("rb") as file:
            piece = file.read(most)
        end = piece.rfind(b"\n") + 1
        # A line that is longer than any host of ours writes is cut, but not within a character: a piece is text.
        return piece[:end] if end else piece.decode("utf-8", "ignore").encode()

    def advance(self, size: int) -> None:
        """Central holds *size* bytes of this lease's log: go on from there.

        Raises:
            OSError: the disk won't take it; nothing has changed, the piece is sent again and ignored.
        """
        if size == self.base:
            return
        rest = b""
        if self.base < size < self.base + self.size:
            with self._path(self.base).open("rb") as file:
                file.seek(size - self.base)
                rest = file.read()
        elif size < self.base and self.size:  # central has lost what it had taken; that is gone here as well
            rest = self._path(self.base).read_bytes()
        self._replace(size, rest)

    def refuse(self) -> None:
        """Central takes no more: what waits is dropped, and what comes."""
        self.is_refused, self.size, self.lost = True, 0, 0
        with contextlib.suppress(OSError):
            self._path(self.base).unlink(missing_ok=True)

    def _replace(self, base: int, content: bytes) -> None:
        part = self._directory / "log.part"
        part.unlink(missing_ok=True)
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        # Both may exist for a moment; the later offset counts (`find`). Central's smaller size is the exception: remove first.
        if base < self.base:
            self._path(self.base).unlink(missing_ok=True)
        part.rename(self._path(base))
        if base > self.base:
            self._path(self.base).unlink(missing_ok=True)
        self.base, self.size = base, len(content)

    def _found(self) -> set[int]:
        names = (path.name.removeprefix("log.") for path in self._directory.glob("log.*"))
        return {int(name) for name in names if name.isdecimal() and name.isascii()}

    def _path(self, base: int) -> Path:
        return self._directory / f"log.{base}"
