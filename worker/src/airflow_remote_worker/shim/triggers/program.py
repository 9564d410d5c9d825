"""Hosts triggers: reads `host.json`, connects to the daemon, and runs the triggers that it orders, until ordered to leave.

Like a shim, a host is forked from the zygote and outlives its daemon (docs/adr/0026). One process runs many triggers on one event
loop. No trigger may end the others: :mod:`.running` catches everything that its code raises.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from airflow_remote_worker.local import boottime, frames, job_files, run_as
from airflow_remote_worker.local.seal import unsealed
from airflow_remote_worker.shim import compat, configuration, posix
from airflow_remote_worker.shim.preload import preload
from airflow_remote_worker.shim.triggers import connect
from airflow_remote_worker.shim.triggers.channel import Channel
from airflow_remote_worker.shim.triggers.comms import Comms, TriggerTransport, make_client
from airflow_remote_worker.shim.triggers.current import DEFAULT_THREADS, ContextThreads, Running
from airflow_remote_worker.shim.triggers.encoding import encode_failure
from airflow_remote_worker.shim.triggers.loading import Loader
from airflow_remote_worker.shim.triggers.logs import LineRouter, LogBook, PrintRouter
from airflow_remote_worker.shim.triggers.running import Runner
from airflow_remote_worker.shim.triggers.watchdog import Block, Watchdog

IDLE_S = 60.0
"""How long a host without triggers waits for a daemon. A connected daemon decides itself."""
CANCEL_TIMEOUT_S = 10.0
"""How long a cancelled trigger may take in addition to `on_kill`; then it counts as ended, although its code may still run."""


def run(host_dir: Path) -> int:
    """Run the trigger host of *host_dir* until the daemon orders it to leave; return the exit code."""
    os.environ[job_files.JOB_MARK] = host_dir.name
    spec = msgspec.json.decode(unsealed((host_dir / job_files.HOST_SPEC).read_bytes()), type=job_files.HostSpec)
    preload()
    # Orphans of triggers' processes go to init: reaping them here would steal exit codes from `asyncio.subprocess`.
    posix.leave_orphans()
    if spec.run_as_user:
        return _run_as(spec)
    connect.close_all_but({0, 1, 2})
    return serve(spec, connect.DirectConnector(socket_path=spec.socket_path, contact_path=spec.contact_path))


def _run_as(spec: job_files.HostSpec) -> int:
    become = run_as.make_user_switcher(spec.run_as_user)
    ours, theirs = socket.socketpair()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            connect.close_all_but({0, 1, 2, theirs.fileno()})
            become()
            connect.end_with_parent()  # after the change of user, which would clear it
            code = serve(spec, connect.ParentConnector(theirs))
        except BaseException:  # the child must not return into the parent's code; its stderr is the host's log
            traceback.print_exc()
        finally:
            os._exit(code)
    theirs.close()
    connect.serve_connections(ours, socket_path=spec.socket_path, contact_path=spec.contact_path)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def serve(spec: job_files.HostSpec, connector: connect.Connector) -> int:
    """Run triggers until the daemon orders the host to leave; return the exit code."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    loop.set_default_executor(ContextThreads(DEFAULT_THREADS, thread_name_prefix="trigger"))
    main = loop.create_task(_main(spec, connector), name="trigger host")
    while True:
        try:
            loop.run_until_complete(main)
            return 0
        except (SystemExit, KeyboardInterrupt) as error:
            if main.done():
                raise
            # Raised in an asyncio task that a trigger has started itself: asyncio re-raises it here. The other triggers go on.
            print(f"trigger host: {type(error).__name__} in a task of a trigger is ignored", file=sys.stderr)


async def _main(spec: job_files.HostSpec, connector: connect.Connector) -> None:
    host = HostProgram(spec, connector)
    await host.run()


class HostProgram:
    """Runs the triggers of this process."""

    def __init__(self, spec: job_files.HostSpec, connector: connect.Connector) -> None:
        from airflow.sdk.configuration import conf

        self._spec = spec
        self._connector = connector
        self._triggers: dict[frames.LeaseName, Running] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        """References to running tasks: the loop itself holds only weak ones."""
        self._may_leave = asyncio.Event()
        self._idle_since = boottime.now()
        self._book = LogBook()
        self._channel = Channel(connector=connector, hello=self._hello, book=self._book, receive=self._receive)
        self._book.notify = self._channel.note_lines
        self._loader = Loader(bundle_path=spec.bundle_path, bundle_name=spec.bundle_name, needs_trigger=spec.signed)
        self._on_kill_timeout_s = conf.getfloat("triggerer", "on_kill_timeout", fallback=30.0)
        self._runner = Runner(self._loader, self._fire, self._on_kill_timeout_s)
        threshold_s = conf.getfloat("triggerer", "blocked_main_thread_warning_threshold", fallback=0.2)
        self._watchdog = Watchdog(threshold_s, self._report_blocked)
        self._printed = [
            PrintRouter(self._book, sys.stdout, name="task.stdout", level="info"),
            PrintRouter(self._book, sys.stderr, name="task.stderr", level="error"),
        ]

    async def run(self) -> None:
        """Run until the daemon orders the host to leave, or until it has been idle without a daemon for `IDLE_S`."""
        self._set_up_airflow()
        self._watchdog.start()
        connection = asyncio.create_task(self._channel.run(self._check_without_daemon), name="connection")
        leaving = asyncio.create_task(self._may_leave.wait(), name="leave")
        await asyncio.wait({connection, leaving}, return_when=asyncio.FIRST_COMPLETED)
        self._watchdog.stop()
        if connection.done():
            connection.result()  # it ends only with an error, which this raises
        connection.cancel()
        with suppress(asyncio.CancelledError):
            await connection

    def _set_up_airflow(self) -> None:
        from airflow.sdk.execution_time import task_runner
        from airflow.sdk.log import configure_logging

        configuration.name_host(self._spec.worker_name)
        configuration.point_at_bundle(self._spec.bundle_path, bundle_name=self._spec.bundle_name)
        configure_logging(json_output=True, output=LineRouter(self._book))
        sys.stdout, sys.stderr = self._printed
        client = make_client(TriggerTransport(self._channel.ask, self._book))
        task_runner.SUPERVISOR_COMMS = Comms(client, asyncio.get_running_loop())
        self._loader.prepare()

    # Frames of the daemon

    def _hello(self) -> frames.HostHello:
        leases = list(dict.fromkeys([*self._triggers, *self._channel.unacknowledged()]))
        return frames.HostHello(self._spec.host_id, self._spec.key, os.getpid(), leases, self._book.open())

    def _receive(self, frame: frames.Frame) -> None:
        if isinstance(frame, frames.KeepTriggers):
            self._cancel_others(set(frame.leases))
        elif isinstance(frame, frames.StartTrigger):
            self._start(frame)
        elif isinstance(frame, frames.CancelTrigger):
            if running := self._triggers.get(frame.lease):
                self._cancel(running, on_kill=frame.on_kill)
        elif isinstance(frame, frames.Taken):
            self._channel.forget(frame.lease)
        elif isinstance(frame, frames.Leave):
            if not self._triggers and not self._channel.unacknowledged():
                self._may_leave.set()
        else:
            raise frames.BrokenFrame(f"unexpected {type(frame).__name__}")

    def _cancel_others(self, wanted: set[frames.LeaseName]) -> None:
        for lease, running in list(self._triggers.items()):
            if lease not in wanted:
                self._cancel(running, on_kill=False)
        for lease in self._channel.unacknowledged():
            if lease not in wanted:
                self._channel.forget(lease)

    def _start(self, order: frames.StartTrigger) -> None:
        lease = order.lease
        if lease in self._triggers or lease in self._channel.unacknowledged():
            return
        self._book.begin(lease)
        running = Running(lease, stop_after_s=order.stop_after_s, contact_at=order.contact_at)
        try:
            workload = msgspec.json.decode(order.workload)
            running.ti = compat.task_instance_of(workload["ti"])
        except Exception as error:
            self._book.end(lease)
            self._channel.end(frames.Fired(lease, encode_failure(error, "the trigger's workload can't be read")))
            return
        self._triggers[lease] = running
        running.task = self._spawn(self._run_trigger(running, workload), name=f"trigger {lease[0]}")

    def _spawn(self, work: Any, *, name: str) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # The life of a trigger

    async def _run_trigger(self, running: Running, workload: dict[str, Any]) -> None:
        await self._runner.run(running, workload)
        for router in self._printed:
            router.end(running.lease)
        if running.is_cancelled:
            return  # :meth:`_await_end` reports it
        self._remove(running)

    def _fire(self, running: Running, event: bytes) -> None:
        # It stays in `_triggers` until its code has ended, so that a cancellation finds it.
        self._channel.end(frames.Fired(running.lease, event))

    def _cancel(self, running: Running, *, on_kill: bool) -> None:
        if running.is_cancelled or running.task is None:
            return
        running.is_cancelled = True
        running.runs_on_kill = on_kill and not running.has_fired
        self._channel.abandon_calls(running)
        running.task.cancel()
        self._spawn(self._await_end(running), name=f"end of trigger {running.lease[0]}")

    async def _await_end(self, running: Running) -> None:
        assert running.task is not None
        patience_s = CANCEL_TIMEOUT_S + (self._on_kill_timeout_s if running.runs_on_kill else 0.0)
        done, _ = await asyncio.wait({running.task}, timeout=patience_s)
        if not done:
            text = f"the trigger did not end within {patience_s:.0f} s after it was cancelled; its code may still run"
            self._book.add_event(running.lease, text, level="warning")
        self._remove(running)
        if not running.has_fired:
            self._channel.end(frames.Cancelled(running.lease))

    def _remove(self, running: Running) -> None:
        if self._triggers.get(running.lease) is running:
            del self._triggers[running.lease]
            self._book.end(running.lease)
        self._idle_since = boottime.now()

    # Without a daemon

    def _check_without_daemon(self) -> None:
        """Enforce `stop_after` while no daemon can be reached: two copies of a trigger must not run for long."""
        now = boottime.now()
        noted_at = self._connector.contact_at
        for running in list(self._triggers.values()):
            # A time in the future is from another boot, or garbled.
            contact_at = max(running.contact_at, noted_at if noted_at <= now else 0.0)
            if running.stop_after_s and now - contact_at > running.stop_after_s:
                text = f"no contact with central for {running.stop_after_s:.0f} s; it counts this trigger as lost by now"
                self._book.add_event(running.lease, text, level="warning")
                self._cancel(running, on_kill=False)
        if not self._triggers and not self._channel.unacknowledged() and now - self._idle_since > IDLE_S:
            self._may_leave.set()

    # Blocked event loop

    def _report_blocked(self, block: Block) -> None:
        running = next((one for one in self._triggers.values() if one.task is block.task), None) if block.task else None
        if running is not None:
            text = (
                f"this trigger blocked the event loop for {block.seconds:.2f} s; no other trigger of the bundle ran meanwhile. "
                f"Use async calls for slow operations, or run them in asyncio.to_thread. The stack was:\n{block.stack}"
            )
            self._book.add_event(running.lease, text, level="warning")
        self._channel.send(frames.Blocked(block.seconds, running.lease if running else None))
