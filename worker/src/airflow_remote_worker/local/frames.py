"""Messages between shims, the zygote, trigger hosts and the daemon on this machine: length-prefixed msgpack frames.

Imported by both interpreters (the worker's and the runtime's), so it needs only the protocol package, the standard library and
msgspec, which the Task SDK depends on too. A frame is a 4-byte big-endian length and that many bytes of msgpack.
"""

from __future__ import annotations

import re
import socket
import struct

import msgspec
from airflow_remote_protocol.execution import MAX_BODY_BYTES

LENGTH = struct.Struct(">I")
MAX_FRAME = MAX_BODY_BYTES + (1 << 20)
"""The largest body of an Execution API call that central can be configured to accept (a large XCom), and 1 MiB for the rest."""
ACCEPT = "accept"
"""The path of a :class:`Call` (POST) outside the Execution API: the daemon accepts the offer at central. For kinds of jobs
without a `run` call."""

OWN_CALL = re.compile(r"(?P<of>task-instances|callbacks)/[^/?]+/(?P<verb>run|state|heartbeat)(?:\?|$)")
"""Paths of the Execution API that report a task's start, state and heartbeat; other paths may end in the same words."""


class Hello(msgspec.Struct, frozen=True, tag="hello"):
    """Shim → daemon, first frame of each connection: proof that it belongs to this job."""

    job_id: str
    key: str
    pid: int


class Call(msgspec.Struct, frozen=True, tag="call"):
    """Shim → daemon: one Execution API request. At most one may be open per connection."""

    id: int
    method: str
    path: str
    """Relative to the Execution API's root, without a leading slash; query string included, percent-encoded."""
    headers: dict[str, str]
    body: bytes = b""
    may_spool: bool = False
    """The shim prefers to keep the call in the job's outbox over waiting for central."""


class Answer(msgspec.Struct, frozen=True, tag="answer"):
    """Daemon → shim: the response to call *id*. During an outage the daemon waits before it answers."""

    id: int
    status: int
    headers: dict[str, str]
    body: bytes = b""


class Spool(msgspec.Struct, frozen=True, tag="spool"):
    """Daemon → shim, instead of an answer to call *id*: central can't be reached, keep the call in the outbox."""

    id: int


class Spooled(msgspec.Struct, frozen=True, tag="spooled"):
    """Shim → daemon: the outbox has a new record. Not sent on connecting: the daemon then always looks into the outbox."""


class Stop(msgspec.Struct, frozen=True, tag="stop"):
    """Daemon → shim, at any time: end the task as the supervisor would."""

    reason: str
    """A `StopReason` value of the protocol."""
    detail: str = ""


class Spawn(msgspec.Struct, frozen=True, tag="spawn"):
    """Daemon → zygote: fork a shim for the job in *job_dir*."""

    job_dir: str


class Spawned(msgspec.Struct, frozen=True, tag="spawned"):
    """Zygote → daemon: the shim's process. *start_time* is psutil's `create_time()`, to recognise a reused pid."""

    job_dir: str
    pid: int
    start_time: float


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """Zygote → daemon, once: preloaded and ready to fork."""

    pid: int
    python: str
    airflow: str
    """Version of the Task SDK in this runtime."""


class Unable(msgspec.Struct, frozen=True, tag="unable"):
    """Zygote → daemon: why the runtime can't host tasks, or (with *job_dir*) why this fork failed."""

    reason: str
    job_dir: str = ""


LeaseName = tuple[str, int]
"""A lease as frames about triggers name it: job id and epoch."""


class HostHello(msgspec.Struct, frozen=True, tag="host-hello"):
    """Trigger host → daemon, first frame of each connection."""

    host_id: str
    key: str
    pid: int
    leases: list[LeaseName] = []
    """The triggers that it runs, and those whose end the daemon has not acknowledged."""
    open_logs: list[LeaseName] | None = None
    """The triggers whose log is not complete at the daemon; None: the host is older and does not complete logs."""


class KeepTriggers(msgspec.Struct, frozen=True, tag="keep-triggers"):
    """Daemon → trigger host, first frame of each connection: the host cancels every other trigger, without `on_kill`."""

    leases: list[LeaseName] = []


class StartTrigger(msgspec.Struct, frozen=True, tag="start-trigger"):
    """Daemon → trigger host: run this trigger. The host ignores it if it runs the trigger already."""

    lease: LeaseName
    workload: bytes
    """The protocol's `TriggerWorkload` as JSON."""
    stop_after_s: float = 0.0
    """How long after the last contact with central the host must cancel it; 0: never."""
    contact_at: float = 0.0
    """When the last contact known to the daemon began, by :func:`.boottime.now`."""


class CancelTrigger(msgspec.Struct, frozen=True, tag="cancel-trigger"):
    """Daemon → trigger host: end this trigger."""

    lease: LeaseName
    on_kill: bool = False
    """A user acted on the task: the trigger's `on_kill` runs."""


class Fired(msgspec.Struct, frozen=True, tag="fired"):
    """Trigger host → daemon: the trigger has ended. Sent again on each connection until :class:`Taken`."""

    lease: LeaseName
    event: bytes
    """The protocol's `TriggerEvent` as JSON."""


class Cancelled(msgspec.Struct, frozen=True, tag="cancelled"):
    """Trigger host → daemon: the trigger was cancelled and has ended. Sent again until :class:`Taken`."""

    lease: LeaseName


class Taken(msgspec.Struct, frozen=True, tag="taken"):
    """Daemon → trigger host: the end of this trigger is stored; the host can forget it."""

    lease: LeaseName


class Lines(msgspec.Struct, frozen=True, tag="lines"):
    """Trigger host → daemon: log lines of several triggers. Sent again on each connection until :class:`LinesTaken`."""

    number: int
    lines: list[tuple[LeaseName, bytes]]
    complete: list[LeaseName] = []
    """The triggers whose code has ended: their logs are complete with these lines."""


class LinesTaken(msgspec.Struct, frozen=True, tag="lines-taken"):
    """Daemon → trigger host: all :class:`Lines` up to *number* are stored."""

    number: int


class TriggerCall(msgspec.Struct, frozen=True, tag="trigger-call"):
    """Trigger host → daemon: one Execution API request of one trigger. Many may be open; each gets an :class:`Answer`."""

    id: int
    lease: LeaseName
    method: str
    path: str
    headers: dict[str, str]
    body: bytes = b""


class Blocked(msgspec.Struct, frozen=True, tag="blocked"):
    """Trigger host → daemon: its event loop was blocked for *seconds*."""

    seconds: float
    lease: LeaseName | None = None
    """The trigger that blocked it, if known."""


class Leave(msgspec.Struct, frozen=True, tag="leave"):
    """Daemon → trigger host: end, because there are no more triggers for this host."""


JobFrame = Hello | Call | Answer | Spool | Spooled | Stop | Spawn | Spawned | Ready | Unable
ToHost = KeepTriggers | StartTrigger | CancelTrigger | Taken | LinesTaken | Leave
FromHost = HostHello | Fired | Cancelled | Lines | TriggerCall | Blocked
Frame = JobFrame | ToHost | FromHost

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Frame] = msgspec.msgpack.Decoder(Frame)


class BrokenFrame(ValueError):
    """The peer closed in the middle of a frame, or sent something that is not a frame."""


def pack(frame: msgspec.Struct) -> bytes:
    """Return *frame* as bytes, prefixed with its length."""
    body = _encoder.encode(frame)
    if len(body) > MAX_FRAME:
        raise BrokenFrame(f"a frame of {len(body)} bytes is over the limit of {MAX_FRAME}")
    return LENGTH.pack(len(body)) + body


def unpack(body: bytes) -> Frame:
    """Return the frame in *body* (the length already stripped).

    Raises:
        BrokenFrame: not a known frame.
    """
    try:
        return _decoder.decode(body)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise BrokenFrame(str(error)) from None


def check_length(prefix: bytes) -> int:
    """Return the length that *prefix* (4 bytes) announces.

    Raises:
        BrokenFrame: longer than :data:`MAX_FRAME`.
    """
    (length,) = LENGTH.unpack(prefix)
    if length > MAX_FRAME:
        raise BrokenFrame(f"the peer announced a frame of {length} bytes; the limit is {MAX_FRAME}")
    return int(length)


def receive(sock: socket.socket) -> Frame | None:
    """Block until one frame has arrived and return it; None if the peer closed between frames. The daemon uses streams."""
    prefix = _receive_exactly(sock, LENGTH.size)
    if not prefix:
        return None
    if len(prefix) < LENGTH.size:
        raise BrokenFrame("the peer closed within a frame's length")
    length = check_length(prefix)
    body = _receive_exactly(sock, length)
    if len(body) < length:
        raise BrokenFrame(f"the peer closed after {len(body)} of {length} bytes")
    return unpack(body)


def _receive_exactly(sock: socket.socket, count: int) -> bytes:
    chunks = []
    while count > 0:
        chunk = sock.recv(min(count, 1 << 20))
        if not chunk:
            break
        chunks.append(chunk)
        count -= len(chunk)
    return b"".join(chunks)
