"""Frames arrive complete, or an error is raised."""

from __future__ import annotations

import socket
import threading

import msgspec
import pytest
from airflow_remote_worker.local import frames

FRAMES = [
    frames.Hello(job_id="j", key="k", pid=7),
    frames.Call(id=1, method="PATCH", path="task-instances/x?a=%20b", headers={"content-type": "text/plain"}, body=b"\x00{}"),
    frames.Answer(id=1, status=204, headers={}),
    frames.Stop(reason="ended", detail="by ada"),
    frames.Spawn(job_dir="/jobs/ü"),
    frames.Spawned(job_dir="/jobs/ü", pid=1 << 22, start_time=1.5),
    frames.Ready(pid=1, python="/rt/bin/python", airflow="1.3.2"),
    frames.Unable(reason="no airflow"),
]


@pytest.mark.parametrize("frame", FRAMES, ids=lambda frame: type(frame).__name__)
def test_a_frame_arrives_as_it_was_sent(frame: frames.Frame) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(frames.pack(frame))
        assert frames.receive(theirs) == frame


def test_a_large_frame_is_read_in_pieces() -> None:
    ours, theirs = socket.socketpair()
    call = frames.Call(id=1, method="POST", path="xcoms/x", headers={}, body=b"x" * (5 << 20))
    with ours, theirs:
        sender = threading.Thread(target=ours.sendall, args=(frames.pack(call),))
        sender.start()
        assert frames.receive(theirs) == call
        sender.join()


def test_closing_between_frames_is_the_end() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        ours.close()
        assert frames.receive(theirs) is None


@pytest.mark.parametrize("kept", [2, 6])
def test_closing_within_a_frame_is_an_error(kept: int) -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        ours.sendall(frames.pack(frames.Spawn(job_dir="/x"))[:kept])
        ours.close()
        with pytest.raises(frames.BrokenFrame, match="closed"):
            frames.receive(theirs)


def test_a_too_long_frame_is_refused_before_it_is_read() -> None:
    with pytest.raises(frames.BrokenFrame, match="limit"):
        frames.check_length(b"\xff\xff\xff\xff")


@pytest.mark.parametrize("body", [b"", b"\xc1", msgspec.msgpack.encode({"type": "gossip"}), msgspec.msgpack.encode([1])])
def test_an_invalid_frame_is_refused(body: bytes) -> None:
    with pytest.raises(frames.BrokenFrame):
        frames.unpack(body)


def test_an_unknown_field_is_ignored() -> None:
    body = msgspec.msgpack.encode({"type": "stop", "reason": "ended", "mood": "calm"})
    assert frames.unpack(body) == frames.Stop(reason="ended")
