"""Stores of packed blobs on central. A store chooses the place; the ledger remembers it (`models.Blob.place`).

A place is used once and never again, so deleting the bytes of a forgotten blob can't delete those of a newer one. It contains the
time at which it was made, so that what a process left behind can be found.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple, Protocol

from sqlalchemy.orm import Session

PLACE_TIME_DIGITS = 10
"""Hexadecimal digits of the seconds since 1970."""


class Piece(NamedTuple):
    """The packed bytes of a blob from *start* to *end* (exclusive)."""

    sha256: str
    place: str
    start: int
    end: int


class BlobLost(Exception):
    """The store does not have the bytes of a blob that the ledger knows."""

    def __init__(self, sha256: str, place: str) -> None:
        super().__init__(
            f"the blob store has no bytes of the file {sha256[:12]} at {place}: they were deleted, or [remote] blob_store names "
            "another store than before"
        )
        self.sha256 = sha256
        self.place = place


class BlobStore(Protocol):
    """Blocking; called from threads. Connection errors of the store are `OSError` or SQLAlchemy's."""

    needs_session: bool
    """Whether the bytes are in the database, so that the calls need a session of it."""

    def put(self, session: Session | None, sha256: str, packed: bytes) -> str:
        """Store packed bytes and return their place. They are there when the transaction of *session* has committed."""

    def read(self, session: Session | None, pieces: Sequence[Piece]) -> list[bytes]:
        """Return the bytes of each piece. The caller bounds their number and size.

        Raises:
            BlobLost: the store does not have them.
        """

    def delete(self, session: Session | None, places: Collection[str]) -> None:
        """Delete the bytes at these places. A place without bytes is skipped."""

    def places(self, session: Session | None, *, before_s: float) -> Iterator[list[str]]:
        """Yield the places that were made before *before_s* (seconds since 1970), in batches."""


def new_place() -> str:
    """Return a place of 35 characters: the time, then random digits."""
    return f"{int(time.time()):0{PLACE_TIME_DIGITS}x}-{secrets.token_hex(12)}"


def made_before(place: str, before_s: float) -> bool:
    """Return whether a place, or the last part of one, was made before *before_s*."""
    return place[:PLACE_TIME_DIGITS] < f"{max(0, int(before_s)):0{PLACE_TIME_DIGITS}x}"
