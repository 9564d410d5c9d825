"""The part of one trigger's log that central does not have yet, on disk: `log.<offset>`, whole lines of UTF-8.

Lines that central has are removed at once, so a trigger that waits for months needs no disk space.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

MOST = 4 * 1024 * 1024
"""Bytes that may be pending: a day's outage for a trigger that logs a line every few seconds."""
PIECE_BYTES = 200_000
"""Bytes of one piece. Longer than any line (`shim/triggers/logs.py` cuts lines at 128 KiB)."""


class PendingLog:
    """The pending log of the trigger in *directory*."""

    __slots__ = ("_directory", "base", "is_refused", "lost", "size")

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.is_refused = False
        """Whether central accepts no more of this log."""
        self.lost = 0
        """Lines that did not fit and are not mentioned in the log yet."""
        self.base = 0
        """The offset in the lease's log at which the pending part begins."""
        self.size = 0
        """Pending bytes."""

    def find(self) -> None:
        """Find the part that an earlier daemon has left."""
        bases = self._found()
        if bases:
            self.base = max(bases)
            for base in bases - {self.base}:
                self._path(base).unlink(missing_ok=True)  # the daemon died in `advance`
            self.size = self._path(self.base).stat().st_size

    def append(self, text: bytes, *, gap: bytes = b"") -> None:
        """Append whole lines; a missing newline at the end is added.

        Lines that do not fit are counted. *gap* is the line to write first if lines were lost before.

        Raises:
            OSError: the disk can't store it.
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

    def read_piece(self, most: int = PIECE_BYTES) -> bytes:
        """Return the next piece, in whole lines; empty if there is nothing.

        Raises:
            OSError: it can't be read.
        """
        if not self.size or self.is_refused:
            return b""
        with self._path(self.base).open("rb") as file:
            piece = file.read(most)
        end = piece.rfind(b"\n") + 1
        # A line longer than our hosts write is cut, but not within a character: a piece is text.
        return piece[:end] if end else piece.decode("utf-8", "ignore").encode()

    def advance(self, size: int) -> None:
        """Continue from *size*, central's size of this lease's log.

        Raises:
            OSError: the disk can't store it; nothing has changed, and central will ignore the repeated piece.
        """
        if size == self.base:
            return
        rest = b""
        if self.base < size < self.base + self.size:
            with self._path(self.base).open("rb") as file:
                file.seek(size - self.base)
                rest = file.read()
        elif size < self.base and self.size:  # central has lost lines that are not here any more either
            rest = self._path(self.base).read_bytes()
        self._replace(size, rest)

    def refuse(self) -> None:
        """Drop the pending lines and all later ones: central accepts no more."""
        self.is_refused, self.size, self.lost = True, 0, 0
        with contextlib.suppress(OSError):
            self._path(self.base).unlink(missing_ok=True)

    def _replace(self, base: int, content: bytes) -> None:
        part = self._directory / "log.part"
        part.unlink(missing_ok=True)
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        # Both files may exist for a moment; the later offset counts (`find`). If the new offset is smaller, remove the old file
        # first.
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
