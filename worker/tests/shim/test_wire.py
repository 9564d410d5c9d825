"""Frames survive the way, whole or not at all."""

from __future__ import annotations

import socket
import threading

import msgspec
import pytest
from airflow_remote_worker.shim import wire

FRAMES = [
    wire.Hello(job_id="j", key="k", pid=7),
    wire.Call(id=1, method="PATCH", path="task-instances/x?a=%20b", headers={"content-type": "text/plain"}, body=b"\x00{}"),
    wire.Answer(id=1, status=204, headers={}),
    wire.Stop(reason="ended", detail="by ada"),
    wire.Spawn(job_dir="/jobs/ü"),
    wire.Spawned(job_dir="/jobs/ü", pid=1 << 22, start_time=1.5),
    wire.Ready(pid=1, python="/rt/bin/python", airflow="1.3.2"),
    wire.Unable(reason="no airflow"),
]


@pytest.mark.parametrize("frame", FRAMES, ids=lambda frame: type(frame).__name__)
def test_a_frame_arrives_as_it_was_sent(frame: wire.Frame) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(wire.pack(frame))
        assert wire.receive(theirs) == frame


def test_a_large_frame_arrives_in_pieces() -> None:
    ours, theirs = socket.socketpair()
    call = wire.Call(id=1, method="POST", path="xcoms/x", headers={}, body=b"x" * (5 << 20))
    with ours, theirs:
        sender = threading.Thread(target=ours.sendall, args=(wire.pack(call),))
        sender.start()
        assert wire.receive(theirs) == call
        sender.join()


def test_the_peer_closing_between_frames_is_the_end() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        ours.close()
        assert wire.receive(theirs) is None


@pytest.mark.parametrize("kept", [2, 6])
def test_the_peer_closing_within_a_frame_is_an_error(kept: int) -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        ours.sendall(wire.pack(wire.Spawn(job_dir="/x"))[:kept])
        ours.close()
        with pytest.raises(wire.BrokenFrame, match="closed"):
            wire.receive(theirs)


def test_an_absurd_length_is_refused_before_it_is_read() -> None:
    with pytest.raises(wire.BrokenFrame, match="limit"):
        wire.check_length(b"\xff\xff\xff\xff")


@pytest.mark.parametrize("body", [b"", b"\xc1", msgspec.msgpack.encode({"type": "gossip"}), msgspec.msgpack.encode([1])])
def test_what_is_no_frame_is_refused(body: bytes) -> None:
    with pytest.raises(wire.BrokenFrame):
        wire.unpack(body)


def test_a_field_we_do_not_know_is_ignored() -> None:
    body = msgspec.msgpack.encode({"type": "stop", "reason": "ended", "mood": "calm"})
    assert wire.unpack(body) == wire.Stop(reason="ended")
