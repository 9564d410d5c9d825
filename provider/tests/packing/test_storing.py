"""The parts of storing a tree: the hash of a Python file's text, and packing at low priority. test_publish.py has the whole."""

from __future__ import annotations

import hashlib
import os
import threading

import pytest
from airflow_remote_provider.packing.storing import LONGEST_TEXT, LowPriorityThreads, text_hash


@pytest.mark.parametrize(
    ("path", "content", "text"),
    [
        ("dag.py", b"x = 1\r\ny = 2\r\n", "x = 1\ny = 2\n"),
        ("dag.py", b"x = 1\ry = 2", "x = 1\ny = 2"),
        ("dag.py", "x = 'é'\n".encode(), "x = 'é'\n"),
    ],
)
def test_the_hash_of_a_python_file_is_that_of_its_text(path: str, content: bytes, text: str) -> None:
    assert text_hash(path, content) == hashlib.md5(text.encode()).hexdigest()


def test_other_files_have_no_hash_of_their_text() -> None:
    assert text_hash("data.csv", b"1") is None
    assert text_hash("dag.py", b"\xff") is None
    assert text_hash("dag.py", b"#" * (LONGEST_TEXT + 1)) is None


def test_work_of_low_priority_returns_or_raises_what_it_does() -> None:
    threads = LowPriorityThreads()
    lower = min(19, os.getpriority(os.PRIO_PROCESS, 0) + 10)
    assert threads.begin(lambda: os.getpriority(os.PRIO_PROCESS, 0)).result(30) == lower
    with pytest.raises(ZeroDivisionError):
        threads.begin(lambda: 1 // 0).result(30)
    assert threads.begin(lambda: 1).result(30) == 1


def test_several_threads_work_at_once() -> None:
    threads, both = LowPriorityThreads(2), threading.Barrier(2, timeout=30)
    assert {work.result(30) for work in [threads.begin(both.wait) for _ in range(2)]} == {0, 1}
