"""The blob store that `[remote] blob_store` names, and the database, where blobs stay that were stored before it was set."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from airflow_remote_provider.stores.blobs import BlobLost, BlobStore, Piece
from airflow_remote_provider.stores.blobs.database import DatabaseBlobs
from airflow_remote_provider.stores.blobs.files import FileBlobs, is_place

DATABASE = "database"
"""The value of `[remote] blob_store` for :class:`.database.DatabaseBlobs`; every other value is a URL."""


class BlobStores:
    """The stores that may have a blob. New blobs go to :attr:`newest`."""

    def __init__(self, setting: str) -> None:
        self._database = DatabaseBlobs()
        self._files = None if setting == DATABASE else FileBlobs(setting)

    @property
    def newest(self) -> BlobStore:
        return self._files or self._database

    @property
    def all(self) -> list[BlobStore]:
        return [self._database] if self._files is None else [self._database, self._files]

    def split(self, places: Collection[str]) -> list[tuple[BlobStore, list[str]]]:
        """Return which of these places are in which store. A place in a store that is not configured any more is in none."""
        files = [place for place in places if is_place(place)]
        found: list[tuple[BlobStore, list[str]]] = [(self._database, [place for place in places if not is_place(place)])]
        if self._files is not None:
            found.append((self._files, files))
        return [(store, some) for store, some in found if some]

    def split_pieces(self, pieces: Sequence[Piece]) -> list[tuple[BlobStore, list[int]]]:
        """Return which of these pieces, by their positions, are in which store.

        Raises:
            BlobLost: a piece is in a store that is not configured any more.
        """
        in_files = [number for number, piece in enumerate(pieces) if is_place(piece.place)]
        if in_files and self._files is None:
            lost = pieces[in_files[0]]
            raise BlobLost(lost.sha256, lost.place)
        in_database = [number for number, piece in enumerate(pieces) if not is_place(piece.place)]
        found: list[tuple[BlobStore, list[int]]] = [(self._database, in_database)]
        if self._files is not None:
            found.append((self._files, in_files))
        return [(store, numbers) for store, numbers in found if numbers]
