"""Blobs as files, in a directory or an object store that Airflow's `ObjectStoragePath` knows."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any

from sqlalchemy.orm import Session

from airflow_remote_provider.compat import open_object_storage
from airflow_remote_provider.stores.blobs import BlobLost, Piece, made_before, new_place

BATCH = 500
"""Places that are passed on together."""
LOCAL = ("", "file", "local")
DIGITS = frozenset("0123456789abcdef")


class FileBlobs:
    """The store of `[remote] blob_store = <url>`. A place is `<2 digits>/<SHA-256>.<time>-<random>` below the URL."""

    needs_session = False

    def __init__(self, url: str) -> None:
        self._url = url
        self._opened: tuple[Any, str] | None = None

    def put(self, session: Session | None, sha256: str, packed: bytes) -> str:
        place = f"{sha256[:2]}/{sha256}.{new_place()}"
        files, root = self._open()
        path = f"{root}/{place}"
        if files.protocol in LOCAL or any(one in LOCAL for one in files.protocol):
            files.makedirs(path.rpartition("/")[0], exist_ok=True)
        files.pipe_file(path, packed)
        return place

    def read(self, session: Session | None, pieces: Sequence[Piece]) -> list[bytes]:
        files, root = self._open()
        whole = [piece for piece in pieces if piece.start < piece.end]  # a store may take an empty range for all of the file
        for piece in pieces:
            if not is_place(piece.place):
                raise BlobLost(piece.sha256, piece.place)
        answers = files.cat_ranges(
            [f"{root}/{piece.place}" for piece in whole],
            [piece.start for piece in whole],
            [piece.end for piece in whole],
            on_error="return",
        )
        found = iter(answers)
        return [b"" if piece.start >= piece.end else _checked(piece, next(found)) for piece in pieces]

    def delete(self, session: Session | None, places: Collection[str]) -> None:
        files, root = self._open()
        for place in sorted(places):
            if is_place(place):  # others are in the database, which was the store before
                try:
                    files.rm_file(f"{root}/{place}")
                except FileNotFoundError:
                    continue

    def places(self, session: Session | None, *, before_s: float) -> Iterator[list[str]]:
        files, root = self._open()
        batch: list[str] = []
        for path in files.find(root):
            place = "/".join(path.split("/")[-2:])
            if is_place(place) and made_before(place.rpartition(".")[2], before_s):
                batch.append(place)
            if len(batch) == BATCH:
                yield batch
                batch = []
        if batch:
            yield batch

    def _open(self) -> tuple[Any, str]:
        """Return the file system and the root within it. A connection of Airflow's is looked up here, at the first use."""
        if self._opened is None:
            self._opened = open_object_storage(self._url)
        return self._opened


def is_place(place: str) -> bool:
    """Return whether this is a place of a :class:`FileBlobs`."""
    directory, _, name = place.partition("/")
    sha256, _, made = name.partition(".")
    return (
        len(sha256) == 64 and DIGITS.issuperset(sha256) and directory == sha256[:2] and DIGITS.issuperset(made.replace("-", ""))
    )


def _checked(piece: Piece, answer: Any) -> bytes:
    if isinstance(answer, FileNotFoundError):
        raise BlobLost(piece.sha256, piece.place)
    if isinstance(answer, OSError):
        raise answer
    if isinstance(answer, BaseException):
        raise OSError(f"the blob store can't read {piece.place}: {answer}") from answer
    if len(answer) != piece.end - piece.start:
        raise BlobLost(piece.sha256, piece.place)
    return bytes(answer)
