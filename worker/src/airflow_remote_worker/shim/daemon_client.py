"""The daemon's local gateway as a shim sees it: one socket, reconnected for as long as the daemon takes to come back.

Owns the frames, the back-off and the memory of a stop. Knows nothing of HTTP (that is :mod:`transport`) nor of processes. It has
no thread: it acts only while somebody calls it, or when the supervisor's selector finds :meth:`Gateway.fileno` readable.
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
"""A unix socket answers at once, unless its backlog is full."""
PIECE = 1 << 20
SEND_TIMEOUT_S = 30.0
"""For a piece of so many bytes: what is tried again would take as long again."""
PATIENCE_WITHOUT_DAEMON_S = 3.0
"""How long a call that may be spooled waits for a daemon to come (back): a restart takes a second or two."""
PATIENCE_AFTER_STOP_S = 2.0
"""How long a call may still wait once the job must stop. Below the supervisor's 5 s between SIGTERM and SIGKILL, which it can't
send while a call blocks it; long enough for an `on_kill` that asks central for a connection over a slow line."""


def _no_verdict() -> frames.Stop | None:
    """The default for a job that runs on however long its daemon is gone."""
    return None


class DaemonClient:
    """Speaks for one job. Not thread-safe; at most one call at a time.

    *judge* is asked, whenever the daemon can't be reached, whether the job must stop all the same.
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
        """The order to end the task, the daemon's or in its absence our own; kept for good once given."""
        self.may_run = False
        """Central let the task start."""
        self.has_spoken = False
        """The task has called for something besides its start and its end: its own code has begun."""

    def call(
        self, method: str, path: str, headers: dict[str, str], body: bytes, *, may_spool: bool = False
    ) -> frames.Answer | frames.Spool | None:
        """Return the answer, however long the daemon takes (it waits out an outage); None when a stop cut the wait short.

        With *may_spool* the answer may be that central, or the daemon itself, is out of reach: keep the call.

        If the connection breaks, the same call is sent again; central must bear that.
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
                self._hang_up()
                self._judge_alone()
                alone_since = alone_since or time.monotonic()
                if may_spool and self.stop is None and time.monotonic() - alone_since >= PATIENCE_WITHOUT_DAEMON_S:
                    return frames.Spool(id=call.id)
                time.sleep(pause * random.uniform(0.75, 1.25))
                pause = min(pause * 2, LONGEST_PAUSE_S)
        self._hang_up()  # so that the daemon drops the call, and its late answer can't be taken for another's
        return None

    def note_call(self, path: str, status: int) -> None:
        """Note how far the task has come, by a call that was answered."""
        told = frames.OWN_CALL.match(path)
        if told is None:
            self.has_spoken = True
        elif told[1] == "run":
            self.may_run = status < 300

    def accept(self) -> str:
        """Accept the offer of a job that has no `run` call; return an empty text, or why the job must not start."""
        answer = self.call("POST", frames.ACCEPT, {}, b"")
        if isinstance(answer, frames.Answer):
            if answer.status < 300:
                return ""
            said = answer.body.decode("utf-8", "replace")[:500]
        else:
            said = "central took it back"
        return f"not started: {said}"

    def drain(self) -> None:
        """Take in what the daemon has sent, and reconnect if it has gone; never waits for it."""
        try:
            self._connect()
            self._take(0)
        except (OSError, frames.BrokenFrame):
            self._hang_up()
            self._judge_alone()

    def tell_spooled(self) -> None:
        """Let the daemon know that the outbox holds something. If it isn't there, it looks when we connect again or have gone."""
        if self._socket is not None:
            try:
                self._send(frames.Spooled())
            except OSError:
                self._hang_up()

    def wait(self, seconds: float) -> None:
        """Sleep, but not through a stop."""
        until = time.monotonic() + seconds
        while self.stop is None and (left := until - time.monotonic()) > 0:
            try:
                self._take(left)
            except (OSError, frames.BrokenFrame):
                self._hang_up()

    def fileno(self) -> int:
        """Readable when there is something to drain. The selector's own descriptor: it outlives reconnects."""
        return self._selector.fileno()

    def abandon(self) -> None:
        """In a forked child: close our copies, and touch nothing that is shared with the parent (no `unregister`)."""
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

    def _hang_up(self) -> None:
        if self._socket is not None:
            self._selector.unregister(self._socket)
            self._socket.close()
            self._socket = None

    def _send(self, frame: frames.Call | frames.Spooled) -> None:
        assert self._socket is not None
        packed = memoryview(frames.pack(frame))
        for begin in range(0, len(packed), PIECE):
            self._socket.sendall(packed[begin : begin + PIECE])

    def _judge_alone(self) -> None:
        if self.stop is None and (stop := self._judge()):
            self._heed(stop)

    def _heed(self, stop: frames.Stop) -> None:
        self.stop = stop
        self._stopped_at = time.monotonic()

    def _await_answer(self, call_id: int, begun: float) -> frames.Answer | frames.Spool | None:
        while (patience := self._patience(begun)) > 0:
            for answer in self._take(patience):
                if answer.id == call_id:
                    return answer
        return None

    def _patience(self, begun: float) -> float:
        """Seconds that a call begun at *begun* may still take."""
        if self.stop is None:
            return float("inf")
        return max(begun, self._stopped_at) + PATIENCE_AFTER_STOP_S - time.monotonic()

    def _take(self, timeout: float) -> list[frames.Answer | frames.Spool]:
        """Wait up to *timeout* for something to arrive; return the answers in it and remember a stop.

        Raises:
            ConnectionError: the daemon has gone.
        """
        if not self._selector.select(None if timeout == float("inf") else timeout) or self._socket is None:
            return []
        answers: list[frames.Answer | frames.Spool] = []
        for frame in self._inbox.receive(self._socket):
            if isinstance(frame, frames.Answer | frames.Spool):
                answers.append(frame)
            elif isinstance(frame, frames.Stop) and self.stop is None:
                self._heed(frame)
        return answers


class Inbox:
    """Puts frames together from whatever pieces arrive."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def receive(self, sock: socket.socket) -> list[frames.Frame]:
        """Read once, without blocking; return the frames that are complete.

        Raises:
            ConnectionError: end of file.
            BrokenFrame: the other side doesn't speak this protocol.
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
