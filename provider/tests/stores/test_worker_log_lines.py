"""Reading the log of a worker: from its end, from a position, and searched; any bytes are shown safely."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from airflow_remote_provider.stores import worker_log_lines
from airflow_remote_provider.stores.worker_log_lines import PIECE, as_download, as_text, read_lines
from airflow_remote_provider.stores.worker_logs import WorkerLogStore
from sqlalchemy import create_engine

from testkit.ledger import use_ledger

W = "11111111-2222"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[WorkerLogStore]:
    with use_ledger(create_engine("sqlite://"), tmp_path):
        yield WorkerLogStore(1 << 20)


def line(event: str, level: str = "info", logger: str = "daemon") -> bytes:
    return json.dumps({"timestamp": "2026-03-01T12:00:00Z", "level": level, "logger": logger, "event": event}).encode() + b"\n"


def test_the_last_lines_are_read_first_and_then_new_ones(store: WorkerLogStore) -> None:
    sent = b"".join(line(f"n{number}") for number in range(5))
    store.append(W, stretch="a", offset=0, body=sent)
    first = read_lines(store, W, most=2)
    assert ([one.text for one in first.items], first.next, first.more) == ([["n3"], ["n4"]], len(sent), False)
    assert read_lines(store, W, most=2, after=first.next).items == []
    store.append(W, stretch="a", offset=len(sent), body=line("n5") + b'{"half')
    later = read_lines(store, W, most=2, after=first.next)
    assert [one.text for one in later.items] == [["n5"]] and not later.more, (
        "an incomplete line is not shown yet, and does not count as more"
    )
    store.append(W, stretch="a", offset=len(sent) + len(line("n5")) + 6, body=b'": 1}\n')
    assert [one.text for one in read_lines(store, W, most=2, after=later.next).items] == [['{"half": 1}']]


def test_lines_beyond_the_limit_are_left_for_the_next_call(store: WorkerLogStore) -> None:
    store.append(W, stretch="a", offset=0, body=b"".join(line(f"n{number}") for number in range(5)))
    seen, after = [], 0
    for _ in range(3):
        lines = read_lines(store, W, most=2, after=after)
        seen += [one.text[0] for one in lines.items]
        after = lines.next
    assert seen == ["n0", "n1", "n2", "n3", "n4"] and not lines.more


def test_a_long_log_is_read_from_whole_lines_of_its_end(store: WorkerLogStore) -> None:
    text = line("x" * 1000)
    big = WorkerLogStore(1 << 23)
    big.append(W, stretch="a", offset=0, body=text * (2 * PIECE // len(text)) + line("last"))
    lines = read_lines(big, W, most=1 << 30)
    assert lines.items[-1].text == ["last"] and {len(one.text[0]) for one in lines.items[:-1]} == {1000}


def test_dropped_bytes_are_mentioned_and_no_half_line_is_shown(store: WorkerLogStore) -> None:
    small, sent = WorkerLogStore(1000), b"".join(line(f"n{number}") for number in range(40))
    for offset in range(0, len(sent), 70):  # a chunk can end anywhere
        small.append(W, stretch="a", offset=offset, body=sent[offset : offset + 70])
    here = small.read(W, 0, 1 << 20)
    assert not here.body.startswith(b"{"), "otherwise this test proves nothing"
    lines = read_lines(small, W, most=100, after=5)
    assert lines.items[0].text == [f"{here.begin - 5} bytes of this log were dropped before they were read"]
    assert lines.items[0].level == "warning" and lines.items[-1].text == ["n39"]
    for asked in (
        lines.items[1:],
        read_lines(small, W, most=100, after=0).items,
        read_lines(small, W, most=99, contains="n").items,
    ):
        assert [one.text[0] for one in asked] == [f"n{number}" for number in range(40 - len(asked), 40)]


def test_a_search_covers_the_whole_log_in_any_case(store: WorkerLogStore) -> None:
    store = WorkerLogStore(1 << 22)
    store.append(W, stretch="a", offset=0, body=line("Disk FULL", "error") + line("fine") * 20_000)
    for wanted in ({"contains": "disk full"}, {"level": "warning"}, {"contains": "Disk", "level": "error"}):
        lines = read_lines(store, W, most=5, **wanted)  # type: ignore[arg-type]
        assert [one.text for one in lines.items] == [["Disk FULL"]] and not lines.more
    assert read_lines(store, W, most=5, contains="disk", level="critical").items == []
    assert len(read_lines(store, W, most=5, contains="DAEMON").items) == 5


@pytest.mark.parametrize(
    ("sent", "text"),
    [
        (b"plain\n", ["plain"]),
        (b"\x00\x1b[2J\xff\n", ["\ufffd\ufffd[2J\ufffd"]),
        (b"[]\n", ["[]"]),
        (b'{"event": 5, "level": "odd", "timestamp": []}\n', ["5"]),
        (json.dumps({"event": "a\nb\u202e"}).encode() + b"\n", ["a", "b\ufffd"]),
        (b"[" * 100_000 + b"\n", ["[" * 9_999 + "\u2026"]),
    ],
)
def test_any_bytes_are_shown_without_control_characters(store: WorkerLogStore, sent: bytes, text: list[str]) -> None:
    store.append(W, stretch="a", offset=0, body=sent)
    (only,) = read_lines(store, W, most=5).items
    assert (only.text, only.level) == (text, "info")


def test_a_line_without_end_does_not_block_reading(store: WorkerLogStore) -> None:
    big = WorkerLogStore(1 << 23)
    big.append(W, stretch="a", offset=0, body=b"x" * (PIECE + 5) + b"\n" + line("after"))
    after, seen = 0, []
    for _ in range(5):
        lines = read_lines(big, W, most=5, after=after)
        after, seen = lines.next, seen + [one.text[0][:5] for one in lines.items]
    assert seen[-1] == "after" and not lines.more


def test_one_call_examines_a_limited_number_of_lines_and_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(worker_log_lines, "LOOKED_AT", 1000)
    parsed: list[bytes] = []
    read = worker_log_lines._parse_line
    monkeypatch.setattr(worker_log_lines, "_parse_line", lambda raw: parsed.append(raw) or read(raw))
    with use_ledger(create_engine("sqlite://"), tmp_path):
        big = WorkerLogStore(1 << 23)
        big.append(W, stretch="a", offset=0, body=line("first") + b"x\n" * 500_000)
        lines = read_lines(big, W, most=5, contains="absent")
        assert [one.text for one in lines.items] == [
            ["only the newest 1000 lines of this log were searched; download it to search all of it"]
        ]
        assert (len(parsed), lines.more) == (1000, False)
        parsed.clear()
        assert len(read_lines(big, W, most=5).items) == len(parsed) == 5, "no more lines are parsed than are shown"
        parsed.clear()
        lines = read_lines(big, W, most=2000, after=0)
        assert (len(lines.items), len(parsed), lines.more) == (1000, 1000, True)
        assert read_lines(big, W, most=1, after=lines.next).items, "and continues from there"


def test_a_download_of_too_many_lines_has_the_newest_and_says_so(monkeypatch: pytest.MonkeyPatch, store: WorkerLogStore) -> None:
    monkeypatch.setattr(worker_log_lines, "DOWNLOADED_LINES", 300)
    store.append(W, stretch="a", offset=0, body=b"".join(b"n%d\n" % number for number in range(1000)) + b"half a line")
    text = b"".join(as_download(store, W)).decode().splitlines()
    assert text[0] == "only the newest 300 lines of this log are included"
    assert text[1:] == [f"INFO n{number}" for number in range(700, 1000)]


def test_a_line_as_text_has_its_traceback_below(store: WorkerLogStore) -> None:
    store.append(W, stretch="a", offset=0, body=line("broke\nTraceback", "error"))
    assert as_text(read_lines(store, W, most=1).items[0]) == "2026-03-01T12:00:00Z ERROR daemon: broke\n    Traceback"
