"""Logs of workers: stretches are joined, and the oldest bytes are deleted first."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from airflow_remote_provider.stores import WrongOffset
from airflow_remote_provider.stores.worker_logs import Piece, WorkerLogStore
from sqlalchemy import create_engine

from testkit.ledger import use_ledger

W = "11111111-2222"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[WorkerLogStore]:
    with use_ledger(create_engine("sqlite://"), tmp_path):
        yield WorkerLogStore(1 << 20)


@pytest.fixture
def folder(store: WorkerLogStore, tmp_path: Path) -> Path:
    return tmp_path / "remote_workers" / W


def whole(store: WorkerLogStore) -> bytes:
    return store.read(W, 0, 1 << 30).body


def test_the_older_half_is_deleted_and_positions_stay(store: WorkerLogStore, folder: Path) -> None:
    small = WorkerLogStore(100)
    sent = b""
    for number in range(40):
        text = b"%07d\n" % number
        assert small.append(W, stretch="a", offset=len(sent), body=text) == len(sent) + 8
        sent += text
    piece = small.read(W, 0, 1 << 30)
    assert piece.end == 320 and 220 <= piece.begin < 280 and sent[piece.begin :] == piece.body
    assert small.read(W, 312, 1 << 30).body == b"0000039\n"
    assert small.append(W, stretch="a", offset=312, body=b"0000039\n") == 320, (
        "a repeat changes nothing after its half was deleted"
    )


@pytest.mark.parametrize("most", [2, 100, 1000])
def test_the_size_limit_holds_for_large_chunks(store: WorkerLogStore, folder: Path, most: int) -> None:
    small, offset = WorkerLogStore(most), 0
    for size in (1, 30, 499, 10_000, most // 2, most):
        offset = small.append(W, stretch="a", offset=offset, body=b"x" * (size - 1) + b"\n")
        assert sum(path.stat().st_size for path in folder.glob("*.log")) <= most
        assert small.read(W, 0, 1 << 30).body.endswith(b"\n") and small.read(W, 0, 1 << 30).end == offset


@pytest.mark.parametrize("verb", ["unlink", "open", "pwrite"])
def test_a_process_killed_at_any_moment_repeats_and_skips_nothing(
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
                    small.append(W, stretch=part, offset=offset, body=sent[offset : offset + 10])
            asked = small.append(W, stretch=part, offset=offset, body=b"")
            assert asked in (offset, offset + 10)
            assert small.append(W, stretch=part, offset=asked, body=sent[asked : offset + 10]) == offset + 10
            assert small.read(W, None, 10).body == sent[offset : offset + 10]
    assert small.read(W, 0, 0).end == 120


def test_deleted_files_do_not_block_appending(store: WorkerLogStore, folder: Path) -> None:
    store.append(W, stretch="a", offset=0, body=b"one\n")
    store.append(W, stretch="b", offset=0, body=b"two\n")
    for path in folder.glob("*.log"):
        path.unlink()
    assert store.append(W, stretch="b", offset=4, body=b"three\n") == 10
    assert whole(store) == b"three\n"


def test_a_truncated_file_does_not_block_reading(store: WorkerLogStore, folder: Path) -> None:
    small = WorkerLogStore(20)
    small.append(W, stretch="a", offset=0, body=b"0123456789")
    small.append(W, stretch="a", offset=10, body=b"abc")
    os.truncate(min(folder.glob("*.log")), 4)
    assert small.read(W, 0, 99).body == b"0123"
    assert small.read(W, 4, 99) == Piece(b"abc", 10, 13)


def test_a_piece_spans_both_files(store: WorkerLogStore) -> None:
    small = WorkerLogStore(20)
    small.append(W, stretch="a", offset=0, body=b"0123456789")
    small.append(W, stretch="a", offset=10, body=b"abc")
    assert small.read(W, 8, 4).body == b"89ab"
    assert small.read(W, None, 4).body == b"9abc"
    assert small.read(W, 13, 4).body == b"" and small.read(W, 99, 4).begin == 13


@pytest.mark.parametrize("broken", [b"", b"{", b"[]", b'{"stretch": "a"}x'])
def test_a_lost_marker_repeats_at_most_one_stretch(store: WorkerLogStore, folder: Path, broken: bytes) -> None:
    store.append(W, stretch="a", offset=0, body=b"one\n")
    (folder / "place.json").write_bytes(broken)
    assert store.append(W, stretch="a", offset=4, body=b"two\n") == 8
    assert whole(store) == b"one\ntwo\n"


def test_a_wrong_offset_is_refused_with_the_size_of_the_stretch(store: WorkerLogStore) -> None:
    store.append(W, stretch="a", offset=0, body=b"one\n")
    store.append(W, stretch="b", offset=0, body=b"two\n")
    with pytest.raises(WrongOffset) as step:
        store.append(W, stretch="b", offset=9, body=b"x")
    assert step.value.size == 4


def test_only_the_log_of_the_named_worker_is_removed(store: WorkerLogStore) -> None:
    assert store.worker_ids() == set()
    for worker_id in (W, "another"):
        store.append(worker_id, stretch="a", offset=0, body=b"x")
    store.remove(store.worker_ids() - {W})
    assert store.worker_ids() == {W} and whole(store) == b"x"
