"""The host's end of its connection to the daemon: sends ends of triggers, log lines and calls, and again after a reconnect.

Ends of triggers and log lines are kept until the daemon has acknowledged them, and calls until they are answered.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import itertools
import random
import sys
from collections.abc import Callable

import msgspec

from airflow_remote_worker.local import frames
from airflow_remote_worker.shim.triggers.connect import Connector
from airflow_remote_worker.shim.triggers.current import Running
from airflow_remote_worker.shim.triggers.logs import LogBook

FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 2.0
FLUSH_AFTER_S = 0.25
"""How long a line waits for more lines; the end of its trigger is sent with it at once."""


class Channel:
    """Belongs to the host's event loop; only :meth:`ask` and :meth:`note_lines` may be called from other threads."""

    def __init__(
        self,
        *,
        connector: Connector,
        hello: Callable[[], frames.HostHello],
        book: LogBook,
        receive: Callable[[frames.Frame], None],
    ) -> None:
        """*receive* is called with every frame that does not concern lines or calls."""
        self.is_connected = False
        self._connector = connector
        self._hello = hello
        self._book = book
        self._receive = receive
        self._loop = asyncio.get_running_loop()
        self._writer: asyncio.StreamWriter | None = None
        self._ends: dict[frames.LeaseName, frames.Fired | frames.Cancelled] = {}
        self._calls: dict[int, tuple[Running, frames.TriggerCall, concurrent.futures.Future[frames.Answer | None]]] = {}
        self._ids = itertools.count(1)
        self._flushing: asyncio.TimerHandle | None = None

    # Called by the host

    def end(self, frame: frames.Fired | frames.Cancelled) -> None:
        """Report to the daemon that a trigger has ended, after all of its lines so far."""
        if frame.lease not in self._ends:
            self._ends[frame.lease] = frame
            self.flush()
            self._send(frame)

    def unacknowledged(self) -> list[frames.LeaseName]:
        """Return the triggers whose end the daemon has not acknowledged."""
        return list(self._ends)

    def forget(self, lease: frames.LeaseName) -> None:
        """Drop an end that the daemon has stored or does not need."""
        self._ends.pop(lease, None)

    def send(self, frame: msgspec.Struct) -> None:
        """Send *frame* if the daemon is connected; it is not repeated."""
        self._send(frame)

    def note_lines(self) -> None:
        """Note that there are log lines to send. May be called from any thread."""
        self._loop.call_soon_threadsafe(self._flush_soon)

    def flush(self) -> None:
        """Send the pending log lines."""
        if self._flushing is not None:
            self._flushing.cancel()
            self._flushing = None
        while self._writer is not None and (batch := self._book.next()) is not None:
            self._send(batch)

    def ask(self, running: Running, call: frames.TriggerCall) -> frames.Answer | None:
        """Return the daemon's answer; None if the trigger is cancelled. Blocks during an outage: not for the event loop."""
        answer: concurrent.futures.Future[frames.Answer | None] = concurrent.futures.Future()
        self._loop.call_soon_threadsafe(self._ask, running, call, answer)
        return answer.result()

    def abandon_calls(self, running: Running) -> None:
        """Answer the open calls of *running* with None. Later calls (of its `on_kill`) are sent."""
        for number, (caller, _, answer) in list(self._calls.items()):
            if caller is running:
                del self._calls[number]
                answer.set_result(None)

    # The connection

    async def run(self, check_without_daemon: Callable[[], None]) -> None:
        """Keep connected, until cancelled. *check_without_daemon* is called after each failed attempt."""
        pause = FIRST_PAUSE_S
        while True:
            try:
                connected = await self._connector.connect()
            except OSError:
                check_without_daemon()
                await asyncio.sleep(pause * random.uniform(0.75, 1.25))
                pause = min(pause * 2, LONGEST_PAUSE_S)
                continue
            pause = FIRST_PAUSE_S
            try:
                reader, self._writer = await asyncio.open_connection(sock=connected)
                self._resend()
                await self._listen(reader)
            except (OSError, asyncio.IncompleteReadError):
                pass  # the daemon has ended: connect to the next one
            except frames.BrokenFrame as error:
                print(f"trigger host: the daemon sent an invalid frame: {error}", file=sys.stderr)
                await asyncio.sleep(LONGEST_PAUSE_S)
            finally:
                self._disconnect()

    def _resend(self) -> None:
        self._send(self._hello())
        for batch in self._book.unacknowledged():
            self._send(batch)
        for frame in self._ends.values():
            self._send(frame)
        for _, call, _ in self._calls.values():
            self._send(call)
        self.flush()
        self.is_connected = True

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        while True:
            length = frames.check_length(await reader.readexactly(frames.LENGTH.size))
            frame = frames.unpack(await reader.readexactly(length))
            if isinstance(frame, frames.Answer):
                if frame.id in self._calls:
                    self._calls.pop(frame.id)[2].set_result(frame)
            elif isinstance(frame, frames.LinesTaken):
                self._book.taken(frame.number)
                self.flush()
            else:
                self._receive(frame)

    def _disconnect(self) -> None:
        self.is_connected = False
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()

    def _send(self, frame: msgspec.Struct) -> None:
        # The transport's buffer is bounded: the book limits lines, there is one end per trigger, and threads limit calls.
        if self._writer is not None:
            self._writer.write(frames.pack(frame))

    def _ask(self, running: Running, call: frames.TriggerCall, answer: concurrent.futures.Future[frames.Answer | None]) -> None:
        numbered = msgspec.structs.replace(call, id=next(self._ids))
        self._calls[numbered.id] = (running, numbered, answer)
        self._send(numbered)

    def _flush_soon(self) -> None:
        if self._flushing is None:
            self._flushing = self._loop.call_later(FLUSH_AFTER_S, self.flush)
