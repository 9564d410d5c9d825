"""Workers' own logs: stretches join, the oldest goes first, and what is read is what any worker may have sent."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from airflow_remote_provider.stores import OutOfStep
from airflow_remote_provider.stores.worker_logs import Piece, WorkerLogStore
from sqlalchemy import create_engine

from testkit.ledger import installed

W = "11111111-2222"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[WorkerLogStore]:
    with installed(create_engine("sqlite://"), tmp_path):
        yield WorkerLogStore(1 << 20)


@pytest.fixture
def folder(store: WorkerLogStore, tmp_path: Path) -> Path:
    return tmp_path / "remote_workers" / W


def whole(store: WorkerLogStore) -> bytes:
    return store.read(W, 0, 1 << 30).body


def test_the_older_half_goes_and_positions_stay(store: WorkerLogStore, folder: Path) -> None:
    small = WorkerLogStore(100)
    sent = b""
    for number in range(40):
        text = b"%07d\n" % number
        assert small.append(W, "a", len(sent), text) == len(sent) + 8
        sent += text
    piece = small.read(W, 0, 1 << 30)
    assert piece.end == 320 and 220 <= piece.begin < 280 and sent[piece.begin :] == piece.body
    assert small.read(W, 312, 1 << 30).body == b"0000039\n"
    assert small.append(W, "a", 312, b"0000039\n") == 320, "a repeat changes nothing after its half has moved"


@pytest.mark.parametrize("most", [2, 100, 1000])
def test_it_never_holds_more_than_it_may_however_much_comes_at_once(store: WorkerLogStore, folder: Path, most: int) -> None:
    small, offset = WorkerLogStore(most), 0
    for size in (1, 30, 499, 10_000, most // 2, most):
        offset = small.append(W, "a", offset, b"x" * (size - 1) + b"\n")
        assert sum(path.stat().st_size for path in folder.glob("*.log")) <= most
        assert small.read(W, 0, 1 << 30).body.endswith(b"\n") and small.read(W, 0, 1 << 30).end == offset


@pytest.mark.parametrize("verb", ["unlink", "open", "pwrite"])
def test_killed_at_any_moment_it_repeats_and_skips_nothing(
    store: WorkerLogStore, folder: Path, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    small, sent = WorkerLogStore(20), b"0123456789" * 6
    for part in ("a", "b"):
        for offset in range(0, len(sent), 10):
            with monkeypatch.context() as patch:
                patch.setattr(os if verb == "pwrite" else Path, verb, killed)
                with contextlib.suppress(KeyboardInterrupt):
                    small.append(W, part, offset, sent[offset : offset + 10])
            asked = small.append(W, part, offset, b"")
            assert asked in (offset, offset + 10)
            assert small.append(W, part, asked, sent[asked : offset + 10]) == offset + 10
            assert small.read(W, None, 10).body == sent[offset : offset + 10]
    assert small.read(W, 0, 0).end == 120


def test_files_that_somebody_deleted_hold_up_nobody(store: WorkerLogStore, folder: Path) -> None:
    store.append(W, "a", 0, b"one\n")
    store.append(W, "b", 0, b"two\n")
    for path in folder.glob("*.log"):
        path.unlink()
    assert store.append(W, "b", 4, b"three\n") == 10
    assert whole(store) == b"three\n"


def test_a_reader_does_not_wait_in_a_gap_that_somebody_cut(store: WorkerLogStore, folder: Path) -> None:
    small = WorkerLogStore(20)
    small.append(W, "a", 0, b"0123456789")
    small.append(W, "a", 10, b"abc")
    os.truncate(min(folder.glob("*.log")), 4)
    assert small.read(W, 0, 99).body == b"0123"
    assert small.read(W, 4, 99) == Piece(b"abc", 10, 13)


def test_a_piece_goes_over_from_the_old_file_to_the_new(store: WorkerLogStore) -> None:
    small = WorkerLogStore(20)
    small.append(W, "a", 0, b"0123456789")
    small.append(W, "a", 10, b"abc")
    assert small.read(W, 8, 4).body == b"89ab"
    assert small.read(W, None, 4).body == b"9abc"
    assert small.read(W, 13, 4).body == b"" and small.read(W, 99, 4).begin == 13


@pytest.mark.parametrize("broken", [b"", b"{", b"[]", b'{"stretch": "a"}x'])
def test_a_marker_that_was_lost_repeats_at_most_a_stretch(store: WorkerLogStore, folder: Path, broken: bytes) -> None:
    store.append(W, "a", 0, b"one\n")
    (folder / "place.json").write_bytes(broken)
    assert store.append(W, "a", 4, b"two\n") == 8
    assert whole(store) == b"one\ntwo\n"


def test_what_does_not_join_is_refused_with_the_size_of_the_stretch(store: WorkerLogStore) -> None:
    store.append(W, "a", 0, b"one\n")
    store.append(W, "b", 0, b"two\n")
    with pytest.raises(OutOfStep) as step:
        store.append(W, "b", 9, b"x")
    assert step.value.size == 4


def test_a_workers_log_is_removed_and_no_others(store: WorkerLogStore) -> None:
    assert store.worker_ids() == set()
    for worker_id in (W, "another"):
        store.append(worker_id, "a", 0, b"x")
    store.remove(store.worker_ids() - {W})
    assert store.worker_ids() == {W} and whole(store) == b"x"
