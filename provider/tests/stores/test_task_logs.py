"""Task logs as files: no byte is lost or written twice if chunks are repeated, cut off or sent concurrently."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from airflow_remote_provider import compat
from airflow_remote_provider.stores import Unstorable, WrongOffset
from airflow_remote_provider.stores.task_logs import FileLogStore
from sqlalchemy import create_engine

from testkit.ledger import use_ledger

LOG = "dag_id=d/run_id=r/task_id=t/attempt=1.log"


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Path]:
    with use_ledger(create_engine("sqlite://"), tmp_path):
        yield tmp_path / LOG


def test_chunks_are_joined(file: Path) -> None:
    store = FileLogStore()
    assert store.append(LOG, base=0, offset=0, body=b"one") == 3
    assert store.append(LOG, base=0, offset=3, body=b"two") == 6
    assert (file.read_bytes(), store.size(LOG)) == (b"onetwo", 6)


def test_a_missing_file_has_no_bytes(file: Path) -> None:
    assert FileLogStore().size(LOG) == 0
    assert not file.exists()


@pytest.mark.parametrize(("offset", "body"), [(0, b"abc"), (0, b"abcdef"), (3, b"def"), (2, b"cd"), (6, b""), (1, b"")])
def test_a_repeat_changes_nothing(file: Path, offset: int, body: bytes) -> None:
    store = FileLogStore()
    store.append(LOG, base=0, offset=0, body=b"abcdef")
    assert store.append(LOG, base=0, offset=offset, body=body) == 6
    assert file.read_bytes() == b"abcdef"


@pytest.mark.parametrize(("offset", "body"), [(7, b"gap"), (4, b"overlaps its end"), (1 << 40, b"")])
def test_a_wrong_offset_is_refused_with_the_size(file: Path, offset: int, body: bytes) -> None:
    store = FileLogStore()
    store.append(LOG, base=0, offset=0, body=b"abcdef")
    with pytest.raises(WrongOffset) as step:
        store.append(LOG, base=0, offset=offset, body=body)
    assert step.value.size == 6
    assert file.read_bytes() == b"abcdef"


def test_an_empty_first_chunk_is_fine(file: Path) -> None:
    assert FileLogStore().append(LOG, base=0, offset=0, body=b"") == 0


def test_a_deferred_task_continues_its_file(file: Path) -> None:
    store = FileLogStore()
    store.append(LOG, base=0, offset=0, body=b"before;")
    base = store.size(LOG)
    assert store.append(LOG, base=base, offset=0, body=b"after") == 5
    assert store.append(LOG, base=base, offset=0, body=b"after") == 5, "a repeat, counted from its own beginning"
    with pytest.raises(WrongOffset) as step:
        store.append(LOG, base=base, offset=9, body=b"gap")
    assert step.value.size == 5
    assert file.read_bytes() == b"before;after"


def test_a_log_that_was_deleted_on_central_is_sent_again(file: Path) -> None:
    store = FileLogStore()
    store.append(LOG, base=0, offset=0, body=b"abc")
    file.unlink()
    with pytest.raises(WrongOffset) as step:
        store.append(LOG, base=0, offset=3, body=b"def")
    assert step.value.size == 0
    assert store.append(LOG, base=0, offset=0, body=b"abcdef") == 6


def test_a_continued_log_that_was_deleted_on_central_can_continue(file: Path) -> None:
    """The part before is lost, which is visible; the part after must still be accepted."""
    store = FileLogStore()
    store.append(LOG, base=0, offset=0, body=b"before;\n")
    store.append(LOG, base=8, offset=0, body=b"abc")
    file.unlink()
    with pytest.raises(WrongOffset) as step:
        store.append(LOG, base=8, offset=3, body=b"def")
    assert step.value.size == 0
    assert store.append(LOG, base=8, offset=0, body=b"abcdef") == 6
    assert store.append(LOG, base=8, offset=6, body=b"ghi") == 9
    assert file.read_bytes() == b"\0" * 7 + b"\nabcdefghi"


def test_concurrent_repeats_write_each_byte_once(file: Path) -> None:
    chunks = [os.urandom(997) for _ in range(60)]
    start, failures = threading.Barrier(2), []

    def send() -> None:
        store, offset, i = FileLogStore(), 0, 0
        start.wait(10)
        while i < len(chunks):
            try:
                assert store.append(LOG, base=0, offset=offset, body=chunks[i]) >= offset + len(chunks[i])
            except WrongOffset as step:
                failures.append(step)
                return
            offset, i = offset + len(chunks[i]), i + 1

    threads = [threading.Thread(target=send) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert failures == []
    assert file.read_bytes() == b"".join(chunks)


def test_paths_are_relative_to_airflows_folder(file: Path) -> None:
    FileLogStore().append(LOG, base=0, offset=0, body=b"x")
    assert file.is_relative_to(compat.base_log_folder())


def test_a_too_long_path_is_refused_with_the_remedy(file: Path) -> None:
    long = LOG.replace("dag_id=d", f"dag_id={'d' * 250}")
    with pytest.raises(Unstorable, match=r"257 bytes.*log_filename_template"):
        FileLogStore().size(long)
    with pytest.raises(Unstorable, match=r"257 bytes.*log_filename_template"):
        FileLogStore().append(long, base=0, offset=0, body=b"a word")


def test_an_empty_file_is_made_once_and_never_emptied(file: Path) -> None:
    FileLogStore().create(LOG)
    assert file.read_bytes() == b""
    FileLogStore().append(LOG, base=0, offset=0, body=b"one\n")
    FileLogStore().create(LOG)
    assert file.read_bytes() == b"one\n"


def test_an_append_that_is_not_confirmed_writes_nothing(file: Path) -> None:
    def refuse() -> None:
        raise LookupError

    with pytest.raises(LookupError):
        FileLogStore().append(LOG, base=0, offset=0, body=b"one\n", confirm=refuse)
    assert file.read_bytes() == b""


def test_the_size_waits_for_confirmed_bytes_to_be_written(file: Path) -> None:
    """A job that takes over a file must know all bytes that earlier jobs were still allowed to write."""
    confirmed, go_on, sizes = threading.Event(), threading.Event(), []

    def confirm() -> None:
        confirmed.set()
        go_on.wait(20)

    writer = threading.Thread(
        target=FileLogStore().append, args=(LOG,), kwargs={"base": 0, "offset": 0, "body": b"one\n", "confirm": confirm}
    )
    reader = threading.Thread(target=lambda: sizes.append(FileLogStore().size(LOG)))
    writer.start()
    confirmed.wait(20)
    reader.start()
    reader.join(0.2)
    assert sizes == []
    go_on.set()
    writer.join(20)
    reader.join(20)
    assert sizes == [4]
