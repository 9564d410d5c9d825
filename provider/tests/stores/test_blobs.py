"""Blob stores: in the database, in a directory, and in an object store (fsspec's in memory, as Airflow would open it)."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from testkit.ledger import record_statements  # isort: skip

from airflow_remote_provider import compat
from airflow_remote_provider.stores.blobs import BlobLost, BlobStore, Piece
from airflow_remote_provider.stores.blobs.database import PART_BYTES, DatabaseBlobs
from airflow_remote_provider.stores.blobs.files import FileBlobs
from airflow_remote_provider.stores.blobs.opened import BlobStores

T = TypeVar("T")

A, B = "a" * 64, "b" * 64


class _Used:
    """A store with sessions of its own."""

    def __init__(self, store: BlobStore) -> None:
        self.store = store

    def put(self, sha256: str, packed: bytes) -> str:
        return self._call(lambda session: self.store.put(session, sha256, packed))

    def read(self, *pieces: Piece) -> list[bytes]:
        return self._call(lambda session: self.store.read(session, pieces))

    def delete(self, *places: str) -> None:
        self._call(lambda session: self.store.delete(session, places))

    def places(self, before_s: float) -> list[str]:
        return self._call(lambda session: [place for some in self.store.places(session, before_s=before_s) for place in some])

    def _call(self, work: Callable[[Session | None], T]) -> T:
        return compat.in_transaction(work) if self.store.needs_session else work(None)


@pytest.fixture
def memory() -> Iterator[str]:
    """The URL of an object store that Airflow knows, in this process's memory."""
    from airflow.sdk.io import attach
    from fsspec.implementations.memory import MemoryFileSystem

    attach("memory", fs=MemoryFileSystem())
    yield f"memory://bucket-{secrets.token_hex(4)}/blobs"


@pytest.fixture(params=["database", "directory", "file url", "memory"])
def used(request: pytest.FixtureRequest, database: Engine, tmp_path: Path, memory: str) -> _Used:
    if request.param != "database" and database.dialect.name != "sqlite":
        pytest.skip("needs no database")
    urls = {"directory": f"{tmp_path}/some blobs/here", "file url": f"file://{tmp_path}/blobs/", "memory": memory}
    return _Used(DatabaseBlobs() if request.param == "database" else FileBlobs(urls[request.param]))


def test_what_was_put_is_read_in_any_pieces(used: _Used) -> None:
    content = secrets.token_bytes(3 * PART_BYTES + 17)
    place = used.put(A, content)
    ends = [0, 1, PART_BYTES - 1, PART_BYTES, PART_BYTES + 1, 2 * PART_BYTES, 3 * PART_BYTES, 3 * PART_BYTES + 16, len(content)]
    pieces = [Piece(A, place, start, end) for start in ends for end in ends if start <= end]
    assert used.read(*pieces) == [content[piece.start : piece.end] for piece in pieces]


def test_pieces_of_many_blobs_are_read_in_their_order(used: _Used) -> None:
    contents = [str(number).encode() * 3 for number in range(30)]
    places = [used.put(f"{number:064x}", content) for number, content in enumerate(contents)]
    pieces = [Piece(f"{number:064x}", places[number], 1, 3) for number in reversed(range(30))]
    assert used.read(*pieces, *pieces[:2]) == [content[1:3] for content in reversed(contents)] + [b"92", b"82"]


def test_an_empty_blob_is_stored(used: _Used) -> None:
    place = used.put(A, b"")
    assert used.read(Piece(A, place, 0, 0)) == [b""]


def test_all_bytes_survive(used: _Used) -> None:
    content = bytes(range(256)) * 3
    place = used.put(A, content)
    assert used.read(Piece(A, place, 0, 768)) == [content]


def test_the_same_blob_put_twice_has_two_places_and_deleting_one_keeps_the_other(used: _Used) -> None:
    one, two = used.put(A, b"same"), used.put(A, b"same")
    assert one != two
    used.delete(one)
    used.delete(one, "ffffffffff-000000000000000000000000")  # a repeat, and a place without bytes
    assert used.read(Piece(A, two, 0, 4)) == [b"same"]
    with pytest.raises(BlobLost) as lost:
        used.read(Piece(A, two, 0, 4), Piece(A, one, 0, 4))
    assert (lost.value.sha256, lost.value.place) == (A, one)


def test_a_blob_that_is_shorter_than_the_ledger_says_is_lost(used: _Used) -> None:
    place = used.put(A, b"short")
    with pytest.raises(BlobLost):
        used.read(Piece(A, place, 2, 6))


def test_places_are_listed_by_the_time_at_which_they_were_made(used: _Used) -> None:
    places = {used.put(f"{number:064x}", b"x") for number in range(5)}
    assert set(used.places(time.time() + 3600)) == places
    assert used.places(time.time() - 3600) == []


def test_a_place_is_short_enough_for_its_column(used: _Used) -> None:
    assert len(used.put(A, b"x")) <= 200


def test_more_places_than_one_statement_takes_are_read_listed_and_deleted(database: Engine) -> None:
    used = _Used(DatabaseBlobs())
    places = (
        [used.put(f"{number:064x}", b"x") for number in range(503)] if database.dialect.name == "sqlite" else [used.put(A, b"x")]
    )
    assert used.read(*(Piece(A, place, 0, 1) for place in places)) == [b"x"] * len(places)
    assert sorted(used.places(time.time() + 3600)) == sorted(places)
    used.delete(*places)
    assert used.places(time.time() + 3600) == []


def test_small_blobs_are_read_with_one_statement(database: Engine) -> None:
    used = _Used(DatabaseBlobs())
    places = [used.put(f"{number:064x}", b"x" * number) for number in range(1, 40)]
    with record_statements(database) as statements:
        used.read(*(Piece(A, place, 0, number) for number, place in enumerate(places, 1)))
    assert len(statements) == 1


def test_a_rolled_back_transaction_stores_nothing(database: Engine) -> None:
    class Failed(Exception):
        pass

    with pytest.raises(Failed), compat.transaction() as session:
        DatabaseBlobs().put(session, A, b"x" * (2 * PART_BYTES))
        raise Failed
    assert _Used(DatabaseBlobs()).places(time.time() + 3600) == []


def test_files_that_are_not_ours_are_left_alone(tmp_path: Path, database: Engine) -> None:
    used = _Used(FileBlobs(str(tmp_path)))
    place = used.put(A, b"x")
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "aa" / "other").write_text("mine")
    assert used.places(time.time() + 3600) == [place]
    used.delete("../notes.txt", "notes.txt", "aa/other")
    assert (tmp_path / "notes.txt").exists() and (tmp_path / "aa" / "other").exists()


def test_blobs_that_were_stored_before_a_store_was_configured_are_still_read(tmp_path: Path, database: Engine) -> None:
    before, after = BlobStores("database"), BlobStores(str(tmp_path))
    old, new = _Used(before.newest).put(A, b"old"), _Used(after.newest).put(B, b"new")
    pieces = [Piece(B, new, 0, 3), Piece(A, old, 0, 3), Piece(B, new, 1, 2)]
    found: dict[int, bytes] = {}
    for store, numbers in after.split_pieces(pieces):
        found |= zip(numbers, _Used(store).read(*(pieces[number] for number in numbers)), strict=True)
    assert [found[number] for number in range(3)] == [b"new", b"old", b"e"]
    assert {len(places) for _, places in after.split([old, new])} == {1}
    with pytest.raises(BlobLost, match="another store than before"):
        before.split_pieces(pieces)
    assert [places for _, places in before.split([old, new])] == [[old]]


def test_errors_of_an_object_store_are_os_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, database: Engine) -> None:
    class Failing:
        protocol = ("s3",)

        def cat_ranges(self, *_: Any, **__: Any) -> list[object]:
            return [RuntimeError("503 Slow Down")]

    store = FileBlobs("s3://bucket")
    place = FileBlobs(str(tmp_path)).put(None, A, b"x")
    monkeypatch.setattr(store, "_opened", (Failing(), "bucket"))
    with pytest.raises(OSError, match="503 Slow Down"):
        store.read(None, [Piece(A, place, 0, 1)])
