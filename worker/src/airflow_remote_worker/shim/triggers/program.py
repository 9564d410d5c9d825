"""Hosts triggers: reads `host.json`, connects to the daemon, and runs what it is told to, until it is told to leave.

Forked from the zygote as a shim is, and outlives its daemon as a shim does (docs/adr/0026). One process runs many triggers, on
one event loop. What one trigger does must not end the others: :mod:`.running` catches all that its code raises.
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
"""How long a host without triggers and without a daemon waits for one. With a daemon, the daemon decides."""
UNHEEDED_S = 10.0
"""How long a cancelled trigger may take beyond `on_kill`; then it is counted as ended, although its code runs on."""


def run(host_dir: Path) -> int:
    """Be the trigger host of *host_dir*; return when the daemon lets it go."""
    os.environ[job_files.JOB_MARK] = host_dir.name
    spec = msgspec.json.decode(unsealed((host_dir / job_files.HOST_SPEC).read_bytes()), type=job_files.HostSpec)
    preload()
    # Orphans of triggers' processes go to init: to reap them here would take exit codes from `asyncio.subprocess`.
    posix.leave_orphans()
    if spec.run_as_user:
        return _run_as(spec)
    connect.close_all_but({0, 1, 2})
    return serve(spec, connect.Direct(spec.socket_path, spec.contact_path))


def _run_as(spec: job_files.HostSpec) -> int:
    become = run_as.becoming(spec.run_as_user)
    ours, theirs = socket.socketpair()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            connect.close_all_but({0, 1, 2, theirs.fileno()})
            become()
            connect.end_with_parent()  # after the change of user, which clears it
            code = serve(spec, connect.Carried(theirs))
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    theirs.close()
    connect.carry(ours, spec.socket_path, spec.contact_path)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def serve(spec: job_files.HostSpec, connector: connect.Connector) -> int:
    """Run triggers until the daemon lets the host go."""
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
            # Raised in a task that a trigger has started by itself: asyncio lets it through. The others go on.
            print(f"trigger host: {type(error).__name__} in a task of a trigger is ignored", file=sys.stderr)


async def _main(spec: job_files.HostSpec, connector: connect.Connector) -> None:
    host = HostProgram(spec, connector)
    await host.run()


class HostProgram:
    """The triggers of this process."""

    def __init__(self, spec: job_files.HostSpec, connector: connect.Connector) -> None:
        from airflow.sdk.configuration import conf

        self._spec = spec
        self._connector = connector
        self._triggers: dict[frames.LeaseName, Running] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        """Kept: the loop itself holds tasks weakly."""
        self._let_go = asyncio.Event()
        self._idle_since = boottime.now()
        self._book = LogBook()
        self._channel = Channel(connector, self._hello, self._book, self._receive)
        self._book.notify = self._channel.note_lines
        self._loader = Loader(spec.bundle_path, spec.bundle_name)
        self._on_kill_timeout_s = conf.getfloat("triggerer", "on_kill_timeout", fallback=30.0)
        self._runner = Runner(self._loader, self._fire, self._on_kill_timeout_s)
        threshold_s = conf.getfloat("triggerer", "blocked_main_thread_warning_threshold", fallback=0.2)
        self._watchdog = Watchdog(threshold_s, self._tell_blocked)
        self._printed = [
            PrintRouter(self._book, sys.stdout, "task.stdout", "info"),
            PrintRouter(self._book, sys.stderr, "task.stderr", "error"),
        ]

    async def run(self) -> None:
        """Return once the daemon has let us go, or none came for so long that nobody needs us."""
        self._set_up_airflow()
        self._watchdog.start()
        connection = asyncio.create_task(self._channel.run(self._judge_alone), name="connection")
        letting_go = asyncio.create_task(self._let_go.wait(), name="leave")
        await asyncio.wait({connection, letting_go}, return_when=asyncio.FIRST_COMPLETED)
        self._watchdog.stop()
        if connection.done():
            connection.result()  # it returns only by an error
        connection.cancel()
        with suppress(asyncio.CancelledError):
            await connection

    def _set_up_airflow(self) -> None:
        from airflow.sdk.execution_time import task_runner
        from airflow.sdk.log import configure_logging

        configuration.name_host(self._spec.worker_name)
        configuration.point_at_bundle(self._spec.bundle_path, self._spec.bundle_name)
        configure_logging(json_output=True, output=LineRouter(self._book))
        sys.stdout, sys.stderr = self._printed
        client = make_client(TriggerTransport(self._channel.ask, self._book))
        task_runner.SUPERVISOR_COMMS = Comms(client, asyncio.get_running_loop())
        self._loader.prepare()

    # What the daemon says

    def _hello(self) -> frames.HostHello:
        leases = list(dict.fromkeys([*self._triggers, *self._channel.unacknowledged()]))
        return frames.HostHello(self._spec.host_id, self._spec.key, os.getpid(), leases)

    def _receive(self, frame: frames.Frame) -> None:
        if isinstance(frame, frames.KeepTriggers):
            self._keep(set(frame.leases))
        elif isinstance(frame, frames.StartTrigger):
            self._start(frame)
        elif isinstance(frame, frames.CancelTrigger):
            if running := self._triggers.get(frame.lease):
                self._cancel(running, on_kill=frame.on_kill)
        elif isinstance(frame, frames.Taken):
            self._channel.forget(frame.lease)
        elif isinstance(frame, frames.Leave):
            if not self._triggers and not self._channel.unacknowledged():
                self._let_go.set()
        else:
            raise frames.BrokenFrame(f"unexpected {type(frame).__name__}")

    def _keep(self, wanted: set[frames.LeaseName]) -> None:
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
        running = Running(lease, stop_after_s=order.stop_after_s, contact_at=order.contact_at)
        try:
            workload = msgspec.json.decode(order.workload)
            running.ti = compat.task_instance_of(workload["ti"])
        except Exception as error:
            self._channel.end(frames.Fired(lease, encode_failure(error, "the trigger's workload can't be read")))
            return
        self._triggers[lease] = running
        running.task = self._spawn(self._live(running, workload), name=f"trigger {lease[0]}")

    def _spawn(self, work: Any, *, name: str) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # The life of a trigger

    async def _live(self, running: Running, workload: dict[str, Any]) -> None:
        await self._runner.run(running, workload)
        for router in self._printed:
            router.end(running.lease)
        if running.is_cancelled:
            return  # who cancels it tells of it
        self._remove(running)

    def _fire(self, running: Running, event: bytes) -> None:
        # It stays in the list until its code has ended, so that a cancellation finds it.
        self._channel.end(frames.Fired(running.lease, event))

    def _cancel(self, running: Running, *, on_kill: bool) -> None:
        if running.is_cancelled or running.task is None:
            return
        running.is_cancelled = True
        running.runs_on_kill = on_kill and not running.has_fired
        self._channel.abandon_calls(running)
        running.task.cancel()
        self._spawn(self._see_end(running), name=f"end of trigger {running.lease[0]}")

    async def _see_end(self, running: Running) -> None:
        assert running.task is not None
        patience_s = UNHEEDED_S + (self._on_kill_timeout_s if running.runs_on_kill else 0.0)
        done, _ = await asyncio.wait({running.task}, timeout=patience_s)
        if not done:
            text = f"the trigger did not end within {patience_s:.0f} s after it was cancelled; its code may still run"
            self._book.tell(running.lease, text, level="warning")
        self._remove(running)
        if not running.has_fired:
            self._channel.end(frames.Cancelled(running.lease))

    def _remove(self, running: Running) -> None:
        if self._triggers.get(running.lease) is running:
            del self._triggers[running.lease]
        self._idle_since = boottime.now()

    # Alone

    def _judge_alone(self) -> None:
        """No daemon can be reached: two copies of a trigger must not run for long, and nobody else would notice."""
        now = boottime.now()
        noted_at = self._connector.contact_at
        for running in list(self._triggers.values()):
            # A moment ahead of us is of another boot, or garbled.
            contact_at = max(running.contact_at, noted_at if noted_at <= now else 0.0)
            if running.stop_after_s and now - contact_at > running.stop_after_s:
                text = f"no contact with central for {running.stop_after_s:.0f} s; it counts this trigger as lost by now"
                self._book.tell(running.lease, text, level="warning")
                self._cancel(running, on_kill=False)
        if not self._triggers and not self._channel.unacknowledged() and now - self._idle_since > IDLE_S:
            self._let_go.set()

    # Blocked

    def _tell_blocked(self, block: Block) -> None:
        running = next((one for one in self._triggers.values() if one.task is block.task), None) if block.task else None
        if running is not None:
            text = (
                f"this trigger blocked the event loop for {block.seconds:.2f} s; no other trigger of the bundle ran meanwhile. "
                f"Await what takes time, or do it in asyncio.to_thread. It was here:\n{block.stack}"
            )
            self._book.tell(running.lease, text, level="warning")
        self._channel.tell(frames.Blocked(block.seconds, running.lease if running else None))
