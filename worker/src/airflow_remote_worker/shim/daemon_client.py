"""A shim's client of the daemon's local gateway: one socket, reconnected until the daemon is back.

Owns the frames, the back-off and the state of a stop. It does not depend on HTTP (:mod:`transport`) or on processes. It has no
thread: it acts only during a call, or when the supervisor's selector finds :meth:`DaemonClient.fileno` readable.
"""

from __future__ import annotations

import itertools
import random
import selectors
import socket
import time
from collections.abc import Callable

from airflow_remote_worker.local import frames
from airflow_remote_worker.shim import posix

FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 2.0
CONNECT_TIMEOUT_S = 0.5
"""A unix socket accepts at once, unless its backlog is full."""
PIECE = 1 << 20
SEND_TIMEOUT_S = 30.0
"""For each piece of `PIECE` bytes, rather than for a whole frame, whose repetition would take as long again."""
PATIENCE_WITHOUT_DAEMON_S = 3.0
"""How long a call that may be spooled waits for a daemon: a restart takes a second or two."""
PATIENCE_AFTER_STOP_S = 2.0
"""How long a call may still wait once the job must stop. Below the supervisor's 5 s between SIGTERM and SIGKILL, because it can't
send signals while a call blocks it; long enough for an `on_kill` that reads a connection from central over a slow line."""


def _no_verdict() -> frames.Stop | None:
    """The default: the job runs on, however long its daemon is unreachable."""
    return None


class DaemonClient:
    """The connection of one job. Not thread-safe; at most one call at a time.

    *judge* is called whenever the daemon can't be reached, and returns a stop if the job must stop nevertheless.
    """

    def __init__(self, socket_path: str, hello: frames.Hello, judge: Callable[[], frames.Stop | None] = _no_verdict) -> None:
        self._socket_path = socket_path
        self._hello = hello
        self._judge = judge
        self._socket: socket.socket | None = None
        self._selector = selectors.DefaultSelector()
        self._inbox = Inbox()
        self._ids = itertools.count(1)
        self._stopped_at = 0.0
        self.stop: frames.Stop | None = None
        """The order to end the task, from the daemon or, in its absence, from *judge*. Never unset."""
        self.may_run = False
        """Whether central allowed the task to start."""
        self.has_called = False
        """Whether the task has made other calls than for its start and its end: its own code has begun."""

    def call(
        self, method: str, path: str, *, headers: dict[str, str], body: bytes, may_spool: bool = False
    ) -> frames.Answer | frames.Spool | None:
        """Return the answer, however long the daemon takes (it waits out an outage); None if a stop ended the wait.

        With *may_spool*, the answer may be a `Spool`: central or the daemon is unreachable, and the caller must keep the call.

        If the connection breaks, the same call is sent again; central must tolerate that.
        """
        call = frames.Call(id=next(self._ids), method=method, path=path, headers=headers, body=body, may_spool=may_spool)
        begun = time.monotonic()
        alone_since: float | None = None
        pause = FIRST_PAUSE_S
        while self._patience(begun) > 0:
            try:
                self._connect()
                self._send(call)
                answer = self._await_answer(call.id, begun)
                if answer is not None:
                    self.note_call(path, answer.status if isinstance(answer, frames.Answer) else 200)
                    return answer
            except (OSError, frames.BrokenFrame):
                self._disconnect()
                self._check_without_daemon()
                alone_since = alone_since or time.monotonic()
                if may_spool and self.stop is None and time.monotonic() - alone_since >= PATIENCE_WITHOUT_DAEMON_S:
                    return frames.Spool(id=call.id)
                time.sleep(pause * random.uniform(0.75, 1.25))
                pause = min(pause * 2, LONGEST_PAUSE_S)
        self._disconnect()  # the daemon then drops the call, and a late answer can't be taken for that of another call
        return None

    def note_call(self, path: str, status: int) -> None:
        """Note from an answered call how far the task has come."""
        own_call = frames.OWN_CALL.match(path)
        if own_call is None:
            self.has_called = True
        elif own_call["verb"] == "run":
            self.may_run = status < 300

    def accept(self) -> str:
        """Accept the offer of a job that has no `run` call; return why the job must not start, or an empty text."""
        answer = self.call("POST", frames.ACCEPT, headers={}, body=b"")
        if isinstance(answer, frames.Answer):
            if answer.status < 300:
                return ""
            reason = answer.body.decode("utf-8", "replace")[:500]
        else:
            reason = "central has stopped it"
        return f"not started: {reason}"

    def drain(self) -> None:
        """Receive what the daemon has sent, and reconnect if necessary. Never waits for the daemon."""
        try:
            self._connect()
            self._take(0)
        except (OSError, frames.BrokenFrame):
            self._disconnect()
            self._check_without_daemon()

    def notify_spooled(self) -> None:
        """Notify the daemon that the outbox has a new write. If it is unreachable, it checks when we reconnect or have exited."""
        if self._socket is not None:
            try:
                self._send(frames.Spooled())
            except OSError:
                self._disconnect()

    def wait(self, seconds: float) -> None:
        """Return after *seconds*, or earlier on a stop."""
        until = time.monotonic() + seconds
        while self.stop is None and (left := until - time.monotonic()) > 0:
            try:
                self._take(left)
            except (OSError, frames.BrokenFrame):
                self._disconnect()

    def fileno(self) -> int:
        """Return a descriptor that is readable when there is something to drain: the selector's, which survives reconnects."""
        return self._selector.fileno()

    def abandon(self) -> None:
        """Close a forked child's copies of our descriptors, without changing state shared with the parent (no `unregister`)."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        self._selector.close()

    def _connect(self) -> None:
        if self._socket is not None:
            return
        sock = posix.connect(self._socket_path, timeout_s=CONNECT_TIMEOUT_S)
        try:
            sock.sendall(frames.pack(self._hello))
            sock.settimeout(SEND_TIMEOUT_S)
        except OSError:
            sock.close()
            raise
        self._selector.register(sock, selectors.EVENT_READ)
        self._socket = sock
        self._inbox = Inbox()

    def _disconnect(self) -> None:
        if self._socket is not None:
            self._selector.unregister(self._socket)
            self._socket.close()
            self._socket = None

    def _send(self, frame: frames.Call | frames.Spooled) -> None:
        assert self._socket is not None
        packed = memoryview(frames.pack(frame))
        for begin in range(0, len(packed), PIECE):
            self._socket.sendall(packed[begin : begin + PIECE])

    def _check_without_daemon(self) -> None:
        if self.stop is None and (stop := self._judge()):
            self._accept_stop(stop)

    def _accept_stop(self, stop: frames.Stop) -> None:
        self.stop = stop
        self._stopped_at = time.monotonic()

    def _await_answer(self, call_id: int, begun: float) -> frames.Answer | frames.Spool | None:
        while (patience := self._patience(begun)) > 0:
            for answer in self._take(patience):
                if answer.id == call_id:
                    return answer
        return None

    def _patience(self, begun: float) -> float:
        """Return how many seconds a call that began at *begun* may still take."""
        if self.stop is None:
            return float("inf")
        return max(begun, self._stopped_at) + PATIENCE_AFTER_STOP_S - time.monotonic()

    def _take(self, timeout: float) -> list[frames.Answer | frames.Spool]:
        """Wait up to *timeout* seconds for frames; return the answers among them and remember a stop.

        Raises:
            ConnectionError: the daemon has closed the connection.
        """
        if not self._selector.select(None if timeout == float("inf") else timeout) or self._socket is None:
            return []
        answers: list[frames.Answer | frames.Spool] = []
        for frame in self._inbox.receive(self._socket):
            if isinstance(frame, frames.Answer | frames.Spool):
                answers.append(frame)
            elif isinstance(frame, frames.Stop) and self.stop is None:
                self._accept_stop(frame)
        return answers


class Inbox:
    """Assembles frames from received pieces."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def receive(self, sock: socket.socket) -> list[frames.Frame]:
        """Read once, without blocking; return the complete frames.

        Raises:
            ConnectionError: the daemon has closed the connection.
            BrokenFrame: the daemon sent something that is not a frame.
        """
        try:
            chunk = sock.recv(1 << 18, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return []
        if not chunk:
            raise ConnectionResetError("the daemon closed the connection")
        self._buffer += chunk
        received: list[frames.Frame] = []
        while len(self._buffer) >= frames.LENGTH.size:
            end = frames.LENGTH.size + frames.check_length(bytes(self._buffer[: frames.LENGTH.size]))
            if len(self._buffer) < end:
                break
            received.append(frames.unpack(bytes(self._buffer[frames.LENGTH.size : end])))
            del self._buffer[:end]
        return received
