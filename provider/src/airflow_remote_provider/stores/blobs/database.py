"""Blobs in the database, in parts, so that no statement moves more than a part of a large one."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from itertools import groupby

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from airflow_remote_provider.models import BlobPart
from airflow_remote_provider.stores.blobs import BlobLost, Piece, made_before, new_place

PART_BYTES = 256 << 10
"""A reader holds the parts that its window touches, at most four. MySQL's `max_allowed_packet` is 16 MiB or more."""
BATCH = 500
"""Places in one statement."""
PUT_TOGETHER = 16
"""Parts that are sent in one statement: 4 MiB."""


class DatabaseBlobs:
    """The store of `[remote] blob_store = database`."""

    needs_session = True

    def put(self, session: Session | None, sha256: str, packed: bytes) -> str:
        assert session is not None
        place = new_place()
        parts = [
            BlobPart(place=place, number=number, data=packed[begin : begin + PART_BYTES])
            for number, begin in enumerate(range(0, max(1, len(packed)), PART_BYTES))
        ]
        for begin in range(0, len(parts), PUT_TOGETHER):
            some = parts[begin : begin + PUT_TOGETHER]
            session.add_all(some)
            session.flush()
            for part in some:
                session.expunge(part)
        return place

    def read(self, session: Session | None, pieces: Sequence[Piece]) -> list[bytes]:
        assert session is not None
        found = _load(session, pieces)
        return [_cut(piece, found) for piece in pieces]

    def delete(self, session: Session | None, places: Collection[str]) -> None:
        assert session is not None
        ordered = sorted(places)
        for begin in range(0, len(ordered), BATCH):
            gone = delete(BlobPart).where(BlobPart.place.in_(ordered[begin : begin + BATCH]))
            session.execute(gone.execution_options(synchronize_session=False))

    def places(self, session: Session | None, *, before_s: float) -> Iterator[list[str]]:
        assert session is not None
        last = ""
        while True:
            query = (
                select(BlobPart.place).where(BlobPart.place > last, BlobPart.number == 0).order_by(BlobPart.place).limit(BATCH)
            )
            found = [place for place in session.scalars(query) if made_before(place, before_s)]
            if not found:  # they are in the order of time
                return
            yield found
            last = found[-1]


def _numbers(piece: Piece) -> range:
    """Return the numbers of the parts that a piece touches."""
    return range(piece.start // PART_BYTES, (max(piece.end, piece.start + 1) - 1) // PART_BYTES + 1)


def _load(session: Session, pieces: Sequence[Piece]) -> dict[tuple[str, int], bytes]:
    wanted = sorted({(number, piece.place) for piece in pieces for number in _numbers(piece)})
    found: dict[tuple[str, int], bytes] = {}
    for number, some in groupby(wanted, key=lambda one: one[0]):  # of many small blobs all are part 0
        places = [place for _, place in some]
        for begin in range(0, len(places), BATCH):
            query = select(BlobPart.place, BlobPart.data).where(
                BlobPart.place.in_(places[begin : begin + BATCH]), BlobPart.number == number
            )
            found |= {(row.place, number): row.data for row in session.execute(query)}
    return found


def _cut(piece: Piece, parts: dict[tuple[str, int], bytes]) -> bytes:
    first = piece.start // PART_BYTES
    try:
        data = b"".join(parts[piece.place, number] for number in _numbers(piece))
    except KeyError:
        raise BlobLost(piece.sha256, piece.place) from None
    cut = data[piece.start - first * PART_BYTES : piece.end - first * PART_BYTES]
    if len(cut) != piece.end - piece.start:
        raise BlobLost(piece.sha256, piece.place)
    return cut
