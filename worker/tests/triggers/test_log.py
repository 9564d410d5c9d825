"""What waits of a trigger's log, on disk."""

from __future__ import annotations

from pathlib import Path

import pytest
from airflow_remote_worker.triggers import log as log_module
from airflow_remote_worker.triggers.log import WaitingLog


@pytest.fixture
def waiting(tmp_path: Path) -> WaitingLog:
    return WaitingLog(tmp_path)


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_what_central_has_taken_leaves_the_disk(waiting: WaitingLog, tmp_path: Path) -> None:
    waiting.append(b"one\ntwo\n")
    assert waiting.bite() == b"one\ntwo\n"
    waiting.advance(4)
    assert (waiting.base, waiting.bite()) == (4, b"two\n")
    waiting.append(b"three\n")
    waiting.advance(8)
    assert (waiting.base, waiting.bite()) == (8, b"three\n")
    waiting.advance(14)
    assert (waiting.base, waiting.size, waiting.bite()) == (14, 0, b"")
    assert names(tmp_path) == ["log.14"]


def test_the_next_daemon_goes_on_at_the_same_offset(waiting: WaitingLog, tmp_path: Path) -> None:
    waiting.append(b"one\ntwo\n")
    waiting.advance(4)
    later = WaitingLog(tmp_path)
    later.find()
    assert (later.base, later.bite()) == (4, b"two\n")


def test_an_advance_that_was_cut_off_repeats_nothing(waiting: WaitingLog, tmp_path: Path) -> None:
    waiting.append(b"one\ntwo\n")
    (tmp_path / "log.4").write_bytes(b"two\n")  # written, and the daemon was killed before it removed the older file
    later = WaitingLog(tmp_path)
    later.find()
    assert (later.base, later.bite()) == (4, b"two\n")
    assert names(tmp_path) == ["log.4"]


def test_only_whole_lines_are_bitten_off(waiting: WaitingLog) -> None:
    waiting.append(b"first\nsecond\n")
    assert waiting.bite(most=8) == b"first\n"


def test_a_log_that_waits_for_too_long_is_bounded_and_marked(waiting: WaitingLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_module, "MOST", 20)
    waiting.append(b"0123456789\n")
    waiting.append(b"0123456789\n0123456789\n")
    assert (waiting.lost, waiting.size) == (2, 11)
    waiting.advance(11)
    waiting.append(b"after\n", gap=b"2 lost\n")
    assert (waiting.lost, waiting.bite()) == (0, b"2 lost\nafter\n")


def test_central_may_have_less_than_it_had(waiting: WaitingLog, tmp_path: Path) -> None:
    waiting.append(b"one\n")
    waiting.advance(4)
    waiting.append(b"two\n")
    waiting.advance(0)  # its database was restored from a backup
    assert (waiting.base, waiting.bite()) == (0, b"two\n")
    later = WaitingLog(tmp_path)
    later.find()
    assert (later.base, later.size) == (0, 4)


def test_bytes_that_are_no_text_are_replaced(waiting: WaitingLog) -> None:
    waiting.append(b"\xff\xfe\n")
    waiting.bite().decode()


def test_a_refused_log_takes_no_more(waiting: WaitingLog, tmp_path: Path) -> None:
    waiting.append(b"one\n")
    waiting.refuse()
    waiting.append(b"two\n")
    assert (waiting.bite(), waiting.size, names(tmp_path)) == (b"", 0, [])


def test_a_line_without_an_end_is_cut_between_characters(waiting: WaitingLog) -> None:
    waiting.append(("x" + "\N{SNOWMAN}" * 100).encode())
    piece = waiting.bite(most=12)
    assert piece.decode() == "x" + "\N{SNOWMAN}" * 3
    waiting.advance(len(piece))
    rest = b""
    while piece := waiting.bite(most=100):
        rest += piece
        waiting.advance(waiting.base + len(piece))
    assert rest.decode() == "\N{SNOWMAN}" * 97 + "\n"
