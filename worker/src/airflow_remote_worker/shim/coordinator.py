"""Runs the task as Airflow's own coordinator for Python tasks does, with two more descriptors in the supervisor's selector.

1. The child's pidfd. The original loop notices the child's exit only when another event wakes it: if the last pipe closes just
   before the exit, it sleeps a whole heartbeat interval (seen in 11 of 20 tasks on one core).
2. The gateway. A stop makes the next heartbeat due at once. Our transport answers that heartbeat with *conflict*, and the
   supervisor kills the task in its usual way. (Killing from within a selector callback would nest the loop into itself.)
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
    """Created by Airflow from `[sdk] coordinators`. :mod:`tasks` then sets the gateway and the transport that sends the task's
    state last, and reads the result."""

    gateway: DaemonClient
    last_call: StateLast
    exit_code: int | None = None
    final_state: str = ""
    has_reported_end: bool = False
    """Whether the task's process has reported the task's end itself, which it does after its own code began."""

    def execute_task(self, **arguments: Any) -> Any:
        """Run the task to its end. Arguments and result are those of `BaseCoordinator.execute_task`."""
        process = WatchfulSubprocess.start(gateway=self.gateway, last_call=self.last_call, **arguments)
        try:
            process.wait()
        finally:  # the task may have succeeded although its last report failed
            self.exit_code = process._exit_code
            self.has_reported_end = bool(process._terminal_state)
            if self.exit_code is not None:
                self.final_state = str(getattr(process.final_state, "value", process.final_state))
        return self.ExecutionResult(self.exit_code, process.final_state)


class Reaper:
    """Reaps orphans once a second at most: the loop may run thousands of times a second while a task prints."""

    def __init__(self) -> None:
        self._not_before = 0.0

    def look(self, *, but: int) -> None:
        """Reap orphans if due. *but* is the task itself, whose exit the supervisor waits for."""
        now = time.monotonic()
        if now >= self._not_before:
            self._not_before = now + REAP_EVERY_S
            posix.reap_orphans(but=but)


reaper = Reaper()
"""For the one job that this process hosts."""


class Watchful:
    """A mix-in for subprocesses of the Task SDK: wakes their loop at the child's exit and at messages of the daemon.

    Neither descriptor is in `_open_sockets`, so neither keeps the loop alive after the child. When a callback returns False, the
    loop calls `.close()` on the object, which a bare descriptor does not have. So both callbacks return True and close their
    descriptors themselves.
    """

    __slots__ = ()

    gateway: DaemonClient
    selector: selectors.BaseSelector
    pid: int

    def _register_pipe_readers(self, *sockets: Any, **options: Any) -> None:
        super()._register_pipe_readers(*sockets, **options)  # type: ignore[misc]
        self.selector.register(self.gateway.fileno(), selectors.EVENT_READ, (self._receive_from_daemon, None))
        exit_watch = posix.watch_exit(self.pid)
        if exit_watch is not None:
            self.selector.register(exit_watch, selectors.EVENT_READ, (self._notice_exit, None))

    def _service_subprocess(self, *arguments: Any, **options: Any) -> Any:
        code = super()._service_subprocess(*arguments, **options)  # type: ignore[misc]
        if code is None:
            # Orphans of the task become our children (`posix.detach`): a long task may leave thousands.
            reaper.look(but=self.pid)
        elif self.gateway.stop is not None:
            # Now, not after the wait for the pipes that they hold. Only a task that ended by itself gets that time.
            posix.leftovers.step()
        return code

    def _notice_exit(self, exit_watch: int) -> bool:
        # This only wakes the loop, which reads the exit code after the callbacks.
        self.selector.unregister(exit_watch)
        os.close(exit_watch)
        return True

    def _receive_from_daemon(self, descriptor: int) -> bool:
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
            # Not when its pipes close: processes that it left may hold those for a minute.
            self.last_call.send()
        return code

    def _receive_from_daemon(self, descriptor: int) -> bool:
        super()._receive_from_daemon(descriptor)
        if self.gateway.stop is not None:
            self._last_heartbeat_attempt = float("-inf")  # type: ignore[misc]  # a slot of the base class
        return True
