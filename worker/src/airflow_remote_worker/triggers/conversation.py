"""The daemon's side of the connection to a trigger host: sends orders, receives events, logs and calls (`local/frames.py`)."""

from __future__ import annotations

import hmac
import logging
import math
from collections.abc import Collection
from typing import Protocol

import anyio
import anyio.abc
import msgspec
from anyio.streams.memory import MemoryObjectReceiveStream

from airflow_remote_worker.clock import Clock
from airflow_remote_worker.gateway import Connection, JobAccess, LocalGateway
from airflow_remote_worker.lease import Lease
from airflow_remote_worker.link.client import Executed
from airflow_remote_worker.local import frames
from airflow_remote_worker.triggers.host import TriggerHost
from airflow_remote_worker.triggers.hosts import Hosts
from airflow_remote_worker.triggers.trigger import Stage, Trigger

log = logging.getLogger(__name__)

MOST_CALLS = 1000
"""Open calls of one connection. A host has about 60 threads that may make calls (`shim/triggers`)."""
BLOCKED_LOG_EVERY_S = 10.0
GONE = 410


class Keeper(Protocol):
    """Decides about triggers. Implemented by :class:`~.keeper.TriggerKeeper`."""

    def find(self, lease: Lease) -> Trigger | None: ...

    def claim(self, trigger: Trigger, host: TriggerHost) -> bool:
        """Assign a trigger to the host that runs it; return whether the host must keep it."""
        ...

    def order(self, trigger: Trigger) -> frames.StartTrigger | None:
        """Return the order to start the trigger; None if it can't be started (any more)."""
        ...

    def take_event(self, lease: Lease, event: bytes) -> bool:
        """Store the event of a trigger; return whether the host may forget it."""
        ...

    def take_cancelled(self, lease: Lease) -> None: ...

    def take_lines(self, lease: Lease, text: bytes) -> None: ...

    def complete_log(self, trigger: Trigger) -> None:
        """Note that the host sends no more lines of the trigger."""
        ...

    def reconcile_logs(self, host: TriggerHost, open_logs: Collection[Lease]) -> None:
        """Complete the logs of this host's triggers, except *open_logs*, of which it has more lines."""
        ...

    def supersede(self, lease: Lease, detail: str = ...) -> None: ...


class Conversation:
    """Serves the connections of trigger hosts that the gateway passes on."""

    def __init__(self, *, hosts: Hosts, keeper: Keeper, gateway: LocalGateway, clock: Clock) -> None:
        self._hosts = hosts
        self._keeper = keeper
        self._gateway = gateway
        self._clock = clock

    async def knows(self, hello: frames.HostHello) -> bool:
        """Return whether *hello* has the key of one of our hosts. Waits until the start of that host has returned."""
        await self._hosts.wait_until_started(hello.host_id)
        host = self._hosts.all.get(hello.host_id)
        known = host.spec.key if host else "0" * 32
        return hmac.compare_digest(known.encode(), hello.key.encode()) and host is not None

    async def converse(self, hello: frames.HostHello, connection: Connection) -> None:
        """Serve the host until either side closes the connection."""
        host = self._hosts.all[hello.host_id]
        send, receive = anyio.create_memory_object_stream[msgspec.Struct](math.inf)
        host.outgoing, host.has_connected = send, True
        self._reconcile(host, hello)
        host.settled.set()
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._write, connection, receive, name=f"to {hello.host_id}")
                try:
                    while True:
                        self._receive(host, await connection.receive(), tasks)
                except (anyio.EndOfStream, anyio.IncompleteRead, anyio.BrokenResourceError, anyio.ClosedResourceError):
                    pass  # it has ended, or will reconnect; its process is watched
                except frames.BrokenFrame as error:
                    log.warning("trigger host %s: sent an invalid frame, its connection is closed: %s", hello.host_id, error)
                finally:
                    tasks.cancel_scope.cancel()
        finally:
            if host.outgoing is send:
                host.outgoing = None
            send.close()
            receive.close()

    async def _write(self, connection: Connection, outgoing: MemoryObjectReceiveStream[msgspec.Struct]) -> None:
        async for frame in outgoing:
            try:
                await connection.send(frame)
            except (anyio.BrokenResourceError, anyio.ClosedResourceError):
                return  # the reader notices too

    def _reconcile(self, host: TriggerHost, hello: frames.HostHello) -> None:
        """Compare the triggers that the host runs with those that it should run, and send the orders for the difference."""
        host.completes_logs = hello.open_logs is not None
        self._keeper.reconcile_logs(host, {Lease(*lease) for lease in hello.open_logs or ()})
        named = {Lease(*lease) for lease in hello.leases}
        kept = [lease for lease in named if (trigger := self._keeper.find(lease)) and self._keeper.claim(trigger, host)]
        host.send(frames.KeepTriggers(list(kept)))
        for trigger in list(host.triggers.values()):
            if trigger.stage is Stage.HOSTED and trigger.lease not in named:
                self.start(trigger)
            elif trigger.stage is Stage.CANCELLING:
                if trigger.lease in named:
                    self.cancel(trigger)
                else:
                    self._keeper.take_cancelled(trigger.lease)

    def start(self, trigger: Trigger) -> None:
        """Order the trigger's host to start it, now or when the host connects."""
        if trigger.host is not None and trigger.host.outgoing is not None and (order := self._keeper.order(trigger)):
            trigger.host.send(order)

    def cancel(self, trigger: Trigger) -> None:
        """Order the trigger's host to end it, now or when the host connects."""
        if trigger.host is not None:
            trigger.host.send(frames.CancelTrigger(trigger.lease, trigger.runs_on_kill))

    def acknowledge(self, trigger: Trigger) -> None:
        """Allow the trigger's host to forget the trigger's end."""
        if trigger.host is not None:
            trigger.host.send(frames.Taken(trigger.lease))

    def _receive(self, host: TriggerHost, frame: frames.Frame, tasks: anyio.abc.TaskGroup) -> None:
        if isinstance(frame, frames.Fired):
            lease = Lease(*frame.lease)
            if not self._is_of(host, lease) or self._keeper.take_event(lease, frame.event):
                host.send(frames.Taken(frame.lease))
        elif isinstance(frame, frames.Cancelled):
            if self._is_of(host, Lease(*frame.lease)):
                self._keeper.take_cancelled(Lease(*frame.lease))
            host.send(frames.Taken(frame.lease))
        elif isinstance(frame, frames.Lines):
            for name, text in frame.lines:
                if trigger := self._find_writer(host, name):
                    self._keeper.take_lines(trigger.lease, text)
            for name in frame.complete:
                if trigger := self._find_writer(host, name):
                    self._keeper.complete_log(trigger)
            host.send(frames.LinesTaken(frame.number))
        elif isinstance(frame, frames.TriggerCall):
            if host.open_calls >= MOST_CALLS:
                raise frames.BrokenFrame(f"more than {MOST_CALLS} calls at once")
            host.open_calls += 1
            tasks.start_soon(self._serve_call, host, frame, name=f"call {frame.id} of {frame.lease}")
        elif isinstance(frame, frames.Blocked):
            self._log_blocked(host, frame)
        else:
            raise frames.BrokenFrame(f"unexpected {type(frame).__name__}")

    def _is_of(self, host: TriggerHost, lease: Lease) -> bool:
        return lease in host.triggers

    def _find_writer(self, host: TriggerHost, name: frames.LeaseName) -> Trigger | None:
        """Return the trigger if the host may write its log: also one that has ended, but never one of another host or user."""
        trigger = self._keeper.find(Lease(*name))
        return trigger if trigger is not None and trigger.host_id == host.spec.host_id else None

    async def _serve_call(self, host: TriggerHost, call: frames.TriggerCall) -> None:
        try:
            answer = await self._forward(host, Lease(*call.lease), call)
        finally:
            host.open_calls -= 1
        host.send(frames.Answer(call.id, answer.status, answer.headers, answer.body))

    async def _forward(self, host: TriggerHost, lease: Lease, call: frames.TriggerCall) -> Executed:
        if not self._is_of(host, lease):
            body = b'{"detail": {"reason": "airflow-remote", "message": "this host does not run that trigger"}}'
            return Executed(GONE, {"content-type": "application/json"}, body)
        access = host.accesses.setdefault(lease, JobAccess(lease, "", on_superseded=lambda: self._keeper.supersede(lease)))
        return await self._gateway.forward(
            access, frames.Call(id=call.id, method=call.method, path=call.path, headers=call.headers, body=call.body)
        )

    def _log_blocked(self, host: TriggerHost, frame: frames.Blocked) -> None:
        now = self._clock.monotonic()
        if now - host.blocked_logged_at > BLOCKED_LOG_EVERY_S:
            host.blocked_logged_at = now
            by = f"the trigger {Lease(*frame.lease)}" if frame.lease else "code outside of any trigger's own task"
            log.warning("trigger host %s: %s blocked its event loop for %.1f s", host.spec.host_id, by, frame.seconds)
