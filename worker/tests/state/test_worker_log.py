"""The worker log: limited on disk, with whole lines, and lost lines are counted."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

import pytest
from airflow_remote_worker.state import worker_log
from airflow_remote_worker.state.worker_log import WorkerLog


def _say(log: WorkerLog, message: str, *args: object, level: int = logging.INFO, exc_info: Any = None) -> None:
    log.handle(logging.LogRecord("a.logger", level, __file__, 1, message, args, exc_info))


def _lines(log: WorkerLog) -> list[dict[str, str]]:
    return [json.loads(line) for path in log.files() for line in path.read_bytes().splitlines() if line]


def test_a_record_becomes_a_line_with_time_level_logger_and_text(tmp_path: Path) -> None:
    log, calls = WorkerLog(tmp_path / "own"), []
    log.on_line = lambda: calls.append(1)
    _say(log, "%s is %d", "x", 3, level=logging.WARNING)
    (line,) = _lines(log)
    assert (line["level"], line["logger"], line["event"]) == ("warning", "a.logger", "x is 3") and line["timestamp"].endswith("Z")
    assert calls == [1] and (log.files()[0].stat().st_mode & 0o777) == 0o600


def test_a_traceback_is_part_of_its_line_and_both_are_limited(tmp_path: Path) -> None:
    log = WorkerLog(tmp_path / "own")
    try:
        raise ValueError("broken \ud800")
    except ValueError as error:
        _say(log, "it failed", exc_info=(type(error), error, error.__traceback__))
    _say(log, "x" * 100_000)
    first, second = _lines(log)
    assert first["event"].startswith("it failed\nTraceback") and "broken ?" in first["event"]
    assert len(second["event"]) == worker_log.LONGEST_EVENT


def test_the_next_start_continues_the_newest_file(tmp_path: Path) -> None:
    for message in ("one", "two"):
        _say(WorkerLog(tmp_path / "own"), message)
    log = WorkerLog(tmp_path / "own")
    assert [line["event"] for line in _lines(log)] == ["one", "two"] and len(log.files()) == 1


def test_the_disk_holds_only_a_few_files_and_dropped_bytes_are_logged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_log, "FILE_BYTES", 1000)
    log = WorkerLog(tmp_path / "own")
    for number in range(100):
        _say(log, "line %d", number)
        assert sum(path.stat().st_size for path in log.files()) <= worker_log.MOST_FILES * 1000
    lines = _lines(log)
    assert lines[-1]["event"] == "line 99"
    assert any("bytes of this log were dropped" in line["event"] for line in lines)


def test_files_sort_by_age_even_if_the_clock_was_set_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_log, "FILE_BYTES", 10)
    log = WorkerLog(tmp_path / "own")
    for number, at in enumerate([5_000_000, 3_000_000, 4_000_000]):
        monkeypatch.setattr(worker_log.time, "time_ns", lambda at=at: at)
        _say(log, "%d", number)
    assert [line["event"] for line in _lines(log)] == ["0", "1", "2"]


def test_lost_lines_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = WorkerLog(tmp_path / "own")
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda *_: (_ for _ in ()).throw(OSError("full")))
        _say(log, "lost")
        _say(log, "lost")
    _say(log, "there")
    assert [line["event"] for line in _lines(log)] == ["2 lines of this log were lost: the disk was full or failed", "there"]


def test_an_incomplete_line_counts_as_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log, write = WorkerLog(tmp_path / "own"), os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda fd, line: write(fd, line[:10]))
        _say(log, "cut")
    _say(log, "there")
    half, *whole = log.files()[0].read_bytes().splitlines()
    assert len(half) == 10
    assert [json.loads(line)["event"] for line in whole] == [
        "1 lines of this log were lost: the disk was full or failed",
        "there",
    ]


def test_the_next_start_appends_nothing_to_an_incomplete_line(tmp_path: Path) -> None:
    _say(WorkerLog(tmp_path / "own"), "one")
    path = WorkerLog(tmp_path / "own").files()[0]
    os.truncate(path, path.stat().st_size - 5)
    log = WorkerLog(tmp_path / "own")
    _say(log, "two")
    assert json.loads(path.read_bytes().splitlines()[-1])["event"] == "two"


def test_a_renamed_file_keeps_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_log, "FILE_BYTES", 250)
    log = WorkerLog(tmp_path / "own")
    for number in range(4):
        _say(log, "%d", number)
    before = log.files()
    assert len(before) == 2
    for path in before:
        log.rename(path)
    _say(log, "4")
    assert [line["event"] for line in _lines(log)] == ["0", "1", "2", "3", "4"]
    assert not set(before) & set(log.files())
