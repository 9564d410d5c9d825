"""Where central keeps task logs. The store decides the place; a worker only ever sends bytes at an offset."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class OutOfStep(Exception):
    """The bytes don't join what is there; *size* is how many bytes (from the base) central holds."""

    def __init__(self, size: int) -> None:
        super().__init__(f"central holds {size} bytes")
        self.size = size


class Unstorable(Exception):
    """There can be no such log in this store, now or later; the text says why and what to do. The task is not concerned."""


def always() -> None:
    """Confirm every append."""


class LogStore(Protocol):
    """Blocking; called from the ledger's threads. *path* is relative and central's own."""

    def create(self, path: str) -> None:
        """Make an empty file if there is none, where Airflow's UI looks.

        Raises:
            Unstorable: there can't be one.
        """

    def size(self, path: str) -> int:
        """Return the file's size in bytes, once no append is under way; 0 if there is none.

        Raises:
            Unstorable: there can't be one.
        """

    def append(self, path: str, base: int, offset: int, body: bytes, *, confirm: Callable[[], None] = always) -> int:
        """Append *body* at *offset* counted from *base*; return the new size from *base*. A repeat changes nothing.

        *confirm* is called while nobody else appends or is told the size; what it raises is passed on, and nothing is written.

        Raises:
            OutOfStep: *offset* is beyond what is there, or *body* overlaps its end.
            Unstorable: it can never be stored.
        """
