"""Workers' own logs: stretches join, the oldest goes first, and what is read is what any worker may have sent."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from airflow_remote_provider.logstores import OutOfStep
from airflow_remote_provider.logstores.own import OwnLogStore
from sqlalchemy import create_engine

from testkit.ledger import installed

W = "11111111-2222"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[OwnLogStore]:
    with installed(create_engine("sqlite://"), tmp_path):
        yield OwnLogStore(1 << 20)


@pytest.fixture
def folder(store: OwnLogStore, tmp_path: Path) -> Path:
    return tmp_path / "remote_workers" / W


def whole(store: OwnLogStore) -> bytes:
    return store.read(W, 0, 1 << 30).body


def test_the_older_half_goes_and_positions_stay(store: OwnLogStore, folder: Path) -> None:
    small = OwnLogStore(100)
    sent = b""
    for number in range(40):
        text = b"%07d\n" % number
        assert small.append(W, "a", len(sent), text) == len(sent) + 8
        sent += text
    piece = small.read(W, 0, 1 << 30)
    assert piece.end == 320 and piece.begin > 200 and sent[piece.begin :] == piece.body
    assert sum(path.stat().st_size for path in folder.glob("worker.log*")) <= 120
    assert small.read(W, 312, 1 << 30).body == b"0000039\n"
    assert small.append(W, "a", 312, b"0000039\n") == 320, "a repeat changes nothing after its half has moved"


def test_a_piece_goes_over_from_the_old_file_to_the_new(store: OwnLogStore) -> None:
    small = OwnLogStore(20)
    small.append(W, "a", 0, b"0123456789")
    small.append(W, "a", 10, b"abc")
    assert small.read(W, 8, 4).body == b"89ab"
    assert small.read(W, None, 4).body == b"9abc"
    assert small.read(W, 13, 4).body == b"" and small.read(W, 99, 4).begin == 13


@pytest.mark.parametrize("broken", [b"", b"{", b"[]", b'{"stretch": "a"}x'])
def test_a_marker_that_was_lost_repeats_at_most_a_stretch(store: OwnLogStore, folder: Path, broken: bytes) -> None:
    store.append(W, "a", 0, b"one\n")
    (folder / "place.json").write_bytes(broken)
    assert store.append(W, "a", 4, b"two\n") == 8
    assert whole(store) == b"one\ntwo\n"


def test_what_does_not_join_is_refused_with_the_size_of_the_stretch(store: OwnLogStore) -> None:
    store.append(W, "a", 0, b"one\n")
    store.append(W, "b", 0, b"two\n")
    with pytest.raises(OutOfStep) as step:
        store.append(W, "b", 9, b"x")
    assert step.value.size == 4


def test_only_known_workers_keep_their_logs(store: OwnLogStore, folder: Path) -> None:
    store.append(W, "a", 0, b"x")
    store.append("another", "a", 0, b"x")
    assert store.remove_others({W}) == 1
    assert [path.name for path in folder.parent.iterdir()] == [W]
    assert OwnLogStore(9).remove_others({W}) == 0
