"""Runs the task as Airflow's own coordinator for Python tasks does, with two more descriptors in the supervisor's selector.

1. The child's pidfd. The stock loop learns of the child's exit only when it happens to wake: if the last pipe closes a moment
   before the exit, it sleeps a whole heartbeat interval (seen in 11 of 20 tasks on one core).
2. The gateway. A stop makes the next heartbeat due at once; our transport answers that one with *conflict*, and the supervisor
   kills the task by its own path. (Killing from within a selector callback would nest the loop into itself.)
"""

from __future__ import annotations

import os
import selectors
import time
from typing import Any

import attrs
from airflow.sdk.execution_time.coordinator import BaseCoordinator
from airflow.sdk.execution_time.supervisor import ActivitySubprocess

from airflow_remote_worker.shim import posix
from airflow_remote_worker.shim.daemon_client import DaemonClient
from airflow_remote_worker.shim.last_call import StateLast

REAP_EVERY_S = 1.0


class RemoteCoordinator(BaseCoordinator):  # type: ignore[misc]
    """Airflow builds it from `[sdk] coordinators`; :mod:`tasks` then gives it the gateway and the transport that keeps the task's
    state for last, and takes the result out of it."""

    gateway: DaemonClient
    last_call: StateLast
    exit_code: int | None = None
    final_state: str = ""
    has_told_its_end: bool = False
    """The task's process itself told how the task ends, which it does after its own code began."""

    def execute_task(self, **arguments: Any) -> Any:
        """Run the task to its end. Arguments and result are those of `BaseCoordinator.execute_task`."""
        process = WatchfulSubprocess.start(gateway=self.gateway, last_call=self.last_call, **arguments)
        try:
            process.wait()
        finally:  # the task may have ended well although its last report failed
            self.exit_code = process._exit_code
            self.has_told_its_end = bool(process._terminal_state)
            if self.exit_code is not None:
                self.final_state = str(getattr(process.final_state, "value", process.final_state))
        return self.ExecutionResult(self.exit_code, process.final_state)


class Reaper:
    """Collects orphans now and then: the loop may turn thousands of times a second while a task prints."""

    def __init__(self) -> None:
        self._not_before = 0.0

    def look(self, *, but: int) -> None:
        """*but* is the task itself, whose exit the supervisor waits for."""
        now = time.monotonic()
        if now >= self._not_before:
            self._not_before = now + REAP_EVERY_S
            posix.reap_orphans(but=but)


reaper = Reaper()
"""Of the one job that this process hosts."""


class Watchful:
    """Mixed into a subprocess of the Task SDK: keeps it awake to its child's exit and to the daemon.

    Neither descriptor is in `_open_sockets`, so neither keeps the loop alive after the child. The loop would close what a
    callback is done with by calling `.close()` on it, which a bare descriptor hasn't: both callbacks return True and see to it
    themselves.
    """

    __slots__ = ()

    gateway: DaemonClient
    selector: selectors.BaseSelector
    pid: int

    def _register_pipe_readers(self, *sockets: Any, **options: Any) -> None:
        super()._register_pipe_readers(*sockets, **options)  # type: ignore[misc]
        self.selector.register(self.gateway.fileno(), selectors.EVENT_READ, (self._hear_daemon, None))
        exit_watch = posix.watch_exit(self.pid)
        if exit_watch is not None:
            self.selector.register(exit_watch, selectors.EVENT_READ, (self._notice_exit, None))

    def _service_subprocess(self, *arguments: Any, **options: Any) -> Any:
        code = super()._service_subprocess(*arguments, **options)  # type: ignore[misc]
        if code is None:
            # Orphans of the task come to us (`posix.detach`): a long one may leave thousands.
            reaper.look(but=self.pid)
        elif self.gateway.stop is not None:
            # Now, not when the pipes that they hold have been waited for. A task that ended by itself gets that time.
            posix.leftovers.step()
        return code

    def _notice_exit(self, exit_watch: int) -> bool:
        # Waking was all; the loop asks for the exit code after the callbacks.
        self.selector.unregister(exit_watch)
        os.close(exit_watch)
        return True

    def _hear_daemon(self, descriptor: int) -> bool:
        self.gateway.drain()
        return True


@attrs.define(kw_only=True)
class WatchfulSubprocess(Watchful, ActivitySubprocess):  # type: ignore[misc]
    """A task's subprocess."""

    gateway: DaemonClient
    last_call: StateLast

    def _service_subprocess(self, *arguments: Any, **options: Any) -> Any:
        code = super()._service_subprocess(*arguments, **options)
        if code is None:
            self.last_call.send_if_due()
        else:
            # Not when its pipes close: what it left running may hold those for a minute.
            self.last_call.send()
        return code

    def _hear_daemon(self, descriptor: int) -> bool:
        super()._hear_daemon(descriptor)
        if self.gateway.stop is not None:
            self._last_heartbeat_attempt = float("-inf")  # type: ignore[misc]  # a slot of the base class
        return True
