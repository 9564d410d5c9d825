"""Runs a release on trial as a child of this process, and ends it when its time is up."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import IO, NamedTuple

from airflow_remote_worker import system
from airflow_remote_worker.system.systemd import Notifier
from airflow_remote_worker.update.trial import environment_of_trial

END_WITHIN_S = 15.0
"""How long a trial may take to end after its time is up. Then it is killed; its jobs run on."""
TAIL = 2000
"""Bytes of a trial's last output in which the reason is looked for."""


class End(NamedTuple):
    """How a trial ended."""

    code: int
    reason: str
    """Why it was no success; empty: it ended by itself, proven or not."""
    was_stopped: bool
    """This process was asked to end, and the trial with it."""


def run_trial(command: Sequence[str], *, within_s: float) -> End:
    """Run a release; return when it has ended. After *within_s* it is ended."""
    # The trial doesn't talk to systemd, which would end a service that has just been started and never gets ready.
    Notifier(os.environ).notify_ready()
    ends, held = os.pipe()
    try:
        guard = _Guard(held, within_s)
        with guard.signals():
            child = subprocess.Popen(
                command,
                env=environment_of_trial(os.environ, ends),
                stderr=subprocess.PIPE,
                pass_fds=(ends,),
                start_new_session=True,  # a terminal's Ctrl-C reaches it once, through this process
                preexec_fn=system.end_with_parent,
            )
            return guard.watch(child)
    except OSError as error:
        return End(1, f"it can't be started: {error}", was_stopped=False)
    finally:
        for fd in (ends, held):
            with contextlib.suppress(OSError):
                os.close(fd)
        system.reap_all()


class _Guard:
    """Watches a trial. *held*: the descriptor that the trial notices when it is closed."""

    def __init__(self, held: int, within_s: float) -> None:
        self._held = held
        self._within_s = within_s
        self._received: list[int] = []
        self._child: subprocess.Popen[bytes] | None = None
        self._tail = b""

    @contextlib.contextmanager
    def signals(self) -> Iterator[None]:
        """Pass SIGTERM and SIGINT to the trial."""

        def receive(number: int, frame: object) -> None:
            self._received.append(number)
            if self._child is not None:
                self._child.send_signal(number)

        before = {number: signal.signal(number, receive) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def watch(self, child: subprocess.Popen[bytes]) -> End:
        """Return when *child* has ended."""
        self._child = child
        for number in list(self._received):
            child.send_signal(number)
        reader = threading.Thread(target=self._read, args=(child.stderr,), name="output of the trial", daemon=True)
        reader.start()
        is_late = not self._wait(child)
        reader.join(1)
        return End(child.returncode, self._explain(child.returncode, is_late=is_late), was_stopped=bool(self._received))

    def _wait(self, child: subprocess.Popen[bytes]) -> bool:
        """Wait until the trial has ended; return whether it did so in its time."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(self._within_s)
            return True
        if self._received:
            child.wait()  # it drains for as long as the site's settings allow
            return True
        os.close(self._held)
        try:
            child.wait(END_WITHIN_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        return False

    def _read(self, output: IO[bytes]) -> None:
        """Pass the trial's output on, and keep its end."""
        while line := output.readline(65536):
            self._tail = (self._tail + line)[-TAIL:]
            with contextlib.suppress(OSError, ValueError):
                sys.stderr.buffer.write(line)
                sys.stderr.flush()

    def _explain(self, code: int, *, is_late: bool) -> str:
        lines = [line.strip(" |+-") for line in self._tail.decode("utf-8", "replace").splitlines()]  # of nested tracebacks too
        words = next((line for line in reversed(lines) if line), "")
        last = f"; its last words: {words[:300]!r}" if words else ""
        if is_late:
            return f"it did not reach central within {self._within_s:.0f} s (update.prove_within_s){last}"
        if code < 0:
            return f"it was ended by {_name_of(-code)} during its trial{last}"
        return f"it ended with {code} during its trial{last}" if code else ""


def _name_of(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
