"""Stores of task logs on central. The store decides the place; a worker only sends bytes at an offset."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class WrongOffset(Exception):
    """The bytes don't continue the stored ones; *size* is how many bytes (from the base) central holds."""

    def __init__(self, size: int) -> None:
        super().__init__(f"central holds {size} bytes")
        self.size = size


class Unstorable(Exception):
    """The store can never hold this log; the text says why and what to do. The task itself is not affected."""


def always() -> None:
    """Confirm every append."""


class LogStore(Protocol):
    """Blocking; called from the ledger's threads. *path* is relative and chosen by central."""

    def create(self, path: str) -> None:
        """Create an empty file where Airflow's UI looks for it, unless it exists.

        Raises:
            Unstorable: the file can't exist.
        """

    def size(self, path: str) -> int:
        """Return the file's size in bytes, once no append is under way; 0 if the file does not exist.

        Raises:
            Unstorable: the file can't exist.
        """

    def append(self, path: str, *, base: int, offset: int, body: bytes, confirm: Callable[[], None] = always) -> int:
        """Append *body* at *offset* counted from *base*; return the new size from *base*. A repeat changes nothing.

        *confirm* is called while no other caller can append or read the size. If it raises, the error is passed on and nothing is
        written.

        Raises:
            WrongOffset: *offset* is beyond the end of the log, or *body* overlaps the end.
            Unstorable: the log can never be stored.
        """
