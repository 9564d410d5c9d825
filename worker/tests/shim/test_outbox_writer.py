from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest
from airflow_remote_worker.local import frames
from airflow_remote_worker.local.outbox_file import delivered, record_of
from airflow_remote_worker.shim import outbox_writer as outbox_module
from airflow_remote_worker.shim.outbox_writer import Full, OutboxWriter

CALL = frames.Call(id=0, method="POST", path="xcoms/d/r/t/k", headers={"content-type": "application/json"}, body=b"[1]")


def test_calls_are_appended_and_readable_only_by_this_user(tmp_path: Path) -> None:
    outbox = OutboxWriter(tmp_path)
    assert not outbox.waits
    outbox.append(CALL)
    outbox.append(CALL)
    file = tmp_path / "outbox"
    assert file.read_bytes() == record_of(CALL) * 2
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert outbox.waits


def test_the_outbox_is_pending_until_all_of_it_is_delivered(tmp_path: Path) -> None:
    outbox = OutboxWriter(tmp_path)
    outbox.append(CALL)
    (tmp_path / "outbox.done").write_text(str(len(record_of(CALL)) - 1))
    assert outbox.waits
    (tmp_path / "outbox.done").write_text(str(len(record_of(CALL))))
    assert not outbox.waits


@pytest.mark.parametrize("garbled", ["", "x", "-3", "\udcff"])
def test_an_unreadable_position_means_that_nothing_was_delivered(garbled: str, tmp_path: Path) -> None:
    (tmp_path / "outbox.done").write_bytes(garbled.encode("utf-8", "surrogateescape"))
    assert delivered(tmp_path) == 0


def test_the_outbox_does_not_grow_beyond_its_limit(tmp_path: Path) -> None:
    outbox = OutboxWriter(tmp_path, most=len(record_of(CALL)))
    outbox.append(CALL)
    with pytest.raises(Full):
        outbox.append(CALL)
    assert (tmp_path / "outbox").read_bytes() == record_of(CALL)


def test_a_full_disk_leaves_no_incomplete_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outbox = OutboxWriter(tmp_path)
    outbox.append(CALL)
    write, room = os.write, [5]

    def tight(fd: int, some: bytes) -> int:
        if not room:
            raise OSError(errno.ENOSPC, "no space left on device")
        return write(fd, some[: room.pop()])

    monkeypatch.setattr(outbox_module.os, "write", tight)
    with pytest.raises(OSError, match="no space"):
        outbox.append(CALL)
    assert (tmp_path / "outbox").read_bytes() == record_of(CALL)
