"""The pending part of a trigger's log, on disk."""

from __future__ import annotations

from pathlib import Path

import pytest
from airflow_remote_worker.triggers import log as log_module
from airflow_remote_worker.triggers.log import PendingLog


@pytest.fixture
def waiting(tmp_path: Path) -> PendingLog:
    return PendingLog(tmp_path)


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_lines_that_central_has_are_removed(waiting: PendingLog, tmp_path: Path) -> None:
    waiting.append(b"one\ntwo\n")
    assert waiting.read_piece() == b"one\ntwo\n"
    waiting.advance(4)
    assert (waiting.base, waiting.read_piece()) == (4, b"two\n")
    waiting.append(b"three\n")
    waiting.advance(8)
    assert (waiting.base, waiting.read_piece()) == (8, b"three\n")
    waiting.advance(14)
    assert (waiting.base, waiting.size, waiting.read_piece()) == (14, 0, b"")
    assert names(tmp_path) == ["log.14"]


def test_the_next_daemon_continues_at_the_same_offset(waiting: PendingLog, tmp_path: Path) -> None:
    waiting.append(b"one\ntwo\n")
    waiting.advance(4)
    later = PendingLog(tmp_path)
    later.find()
    assert (later.base, later.read_piece()) == (4, b"two\n")


def test_an_interrupted_advance_repeats_nothing(waiting: PendingLog, tmp_path: Path) -> None:
    waiting.append(b"one\ntwo\n")
    (tmp_path / "log.4").write_bytes(b"two\n")  # written, and the daemon was killed before it removed the older file
    later = PendingLog(tmp_path)
    later.find()
    assert (later.base, later.read_piece()) == (4, b"two\n")
    assert names(tmp_path) == ["log.4"]


def test_pieces_are_whole_lines(waiting: PendingLog) -> None:
    waiting.append(b"first\nsecond\n")
    assert waiting.read_piece(most=8) == b"first\n"


def test_a_pending_log_is_bounded_and_its_gap_is_noted(waiting: PendingLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_module, "MOST", 20)
    waiting.append(b"0123456789\n")
    waiting.append(b"0123456789\n0123456789\n")
    assert (waiting.lost, waiting.size) == (2, 11)
    waiting.advance(11)
    waiting.append(b"after\n", gap=b"2 lost\n")
    assert (waiting.lost, waiting.read_piece()) == (0, b"2 lost\nafter\n")


def test_central_may_have_lost_lines(waiting: PendingLog, tmp_path: Path) -> None:
    waiting.append(b"one\n")
    waiting.advance(4)
    waiting.append(b"two\n")
    waiting.advance(0)  # its database was restored from a backup
    assert (waiting.base, waiting.read_piece()) == (0, b"two\n")
    later = PendingLog(tmp_path)
    later.find()
    assert (later.base, later.size) == (0, 4)


def test_invalid_utf_8_is_replaced(waiting: PendingLog) -> None:
    waiting.append(b"\xff\xfe\n")
    waiting.read_piece().decode()


def test_a_refused_log_stays_empty(waiting: PendingLog, tmp_path: Path) -> None:
    waiting.append(b"one\n")
    waiting.refuse()
    waiting.append(b"two\n")
    assert (waiting.read_piece(), waiting.size, names(tmp_path)) == (b"", 0, [])


def test_a_line_without_an_end_is_cut_between_characters(waiting: PendingLog) -> None:
    waiting.append(("x" + "\N{SNOWMAN}" * 100).encode())
    piece = waiting.read_piece(most=12)
    assert piece.decode() == "x" + "\N{SNOWMAN}" * 3
    waiting.advance(len(piece))
    rest = b""
    while piece := waiting.read_piece(most=100):
        rest += piece
        waiting.advance(waiting.base + len(piece))
    assert rest.decode() == "\N{SNOWMAN}" * 97 + "\n"
