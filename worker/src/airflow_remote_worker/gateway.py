"""The local door: shims send their Execution API calls here and hear stops. A unix socket that only this user can open.

Owns who may speak for which job (a key per job), the wait while central can't be reached, and the order between the writes in a
job's outbox and the task's next call. It does not interpret calls, with one exception: a job is accepted when its task's `run`
call has succeeded, or, for other kinds of jobs, with :data:`.frames.ACCEPT`.
"""

from __future__ import annotations

import contextlib
import hmac
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import anyio
import anyio.abc
import msgspec
from airflow_remote_protocol.messages import StopReason
from anyio.streams.buffered import BufferedByteReceiveStream

from airflow_remote_worker.clock import Clock
from airflow_remote_worker.errors import Refused, Superseded, Unreachable
from airflow_remote_worker.lease import Lease
from airflow_remote_worker.link.attempts import RETRIED, Attempts
from airflow_remote_worker.link.client import BYTES_PER_S, Executed, Link
from airflow_remote_worker.local import frames
from airflow_remote_worker.lost_writes import collides, failed_instead
from airflow_remote_worker.system import sockets

log = logging.getLogger(__name__)

RUN_CALL = re.compile(r"^task-instances/[^/?]+/run(\?|$)")
HELLO_TIMEOUT_S = 10.0
RETRY_FLOOR_S = 0.5
MOST_CONFLICTS = 5
"""How often a call that may be under way twice is repeated when central answers with a conflict."""
PATIENCE_S = 10.0
"""How long a call that may be spooled tries to get through. Packets into a black hole are noticed after 30 s; a slow line may
need some seconds for a large XCom, which would only be sent again."""
GONE = 410
"""What the Task SDK's supervisor takes as "end this task": not found 404, conflict 409, gone 410."""


def _nothing() -> None:
    """The default of a door that nobody listens at."""


class UndeliveredWrites(Protocol):
    """What a job's task wrote and central has not heard yet; the daemon wires it to what delivers it."""

    @property
    def waits(self) -> bool: ...

    def notice(self) -> None: ...

    async def until_empty(self) -> None: ...

    @property
    def lost_at(self) -> float | None:
        """When central refused a write that its task believes to be written; None: never."""
        ...


@dataclass
class JobAccess:
    """One job's way in."""

    lease: Lease
    key: str
    on_accepted: Callable[[], None] = _nothing
    """The `run` call went through: the offer is accepted."""
    on_begun: Callable[[], None] = _nothing
    """Its own code makes a call."""
    on_superseded: Callable[[], None] = _nothing
    """Central says that the job is not ours any more."""
    on_hello: Callable[[int], None] = lambda pid: None
    """Its shim (that pid) has come."""
    outbox: UndeliveredWrites | None = None
    stop: frames.Stop | None = None
    """To be told to every connection, now and later."""
    stopped: anyio.Event = field(default_factory=anyio.Event)
    connections: set[Connection] = field(default_factory=set)


class Connection:
    """One connection of a shim; frames of several tasks never mix."""

    def __init__(self, stream: anyio.abc.ByteStream) -> None:
        self._stream = stream
        self._reader = BufferedByteReceiveStream(stream)
        self._writing = anyio.Lock()

    async def receive(self) -> frames.Frame:
        length = frames.check_length(await self._reader.receive_exactly(frames.LENGTH.size))
        return frames.unpack(await self._reader.receive_exactly(length))

    async def send(self, frame: msgspec.Struct) -> None:
        async with self._writing:
            await self._stream.send(frames.pack(frame))


class Guests(Protocol):
    """What speaks with trigger hosts; the daemon wires it."""

    async def knows(self, hello: frames.HostHello) -> bool: ...

    async def converse(self, hello: frames.HostHello, connection: Connection) -> None: ...


class LocalGateway:
    """Listens at *path*; passes calls on through *link*."""

    hosts: Guests | None = None

    def __init__(self, path: Path, link: Link, clock: Clock) -> None:
        self.path = path
        self._link = link
        self._clock = clock
        self._doors: dict[str, JobAccess] = {}
        self._tasks: anyio.abc.TaskGroup | None = None

    def open(self, door: JobAccess) -> None:
        """Let the shim of this job in from now on; a later lease of the same job replaces an earlier one."""
        self._doors[door.lease.job_id] = door

    def close(self, lease: Lease) -> None:
        """Let nobody in for this lease any more."""
        if (door := self._doors.get(lease.job_id)) and door.lease == lease:
            del self._doors[lease.job_id]

    def stop(self, lease: Lease, stop: frames.Stop) -> None:
        """Push *stop* to the job's shim at once, or as soon as it connects."""
        door = self._doors.get(lease.job_id)
        if door is None or door.lease != lease:
            return
        door.stop = stop
        door.stopped.set()
        for connection in list(door.connections):
            if self._tasks:
                self._tasks.start_soon(self._push, connection, stop, name=f"stop {lease}")

    async def serve(self, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled."""
        listener = await sockets.listen(self.path)
        async with listener, anyio.create_task_group() as tasks:
            self._tasks = tasks
            task_status.started()
            await listener.serve(self._welcome, tasks)

    async def _welcome(self, stream: anyio.abc.SocketStream) -> None:
        connection = Connection(stream)
        try:
            async with stream:
                admitted = await self._admit(connection)
                if isinstance(admitted, JobAccess):
                    await self._converse(admitted, connection)
                elif admitted is not None and self.hosts:
                    await self.hosts.converse(admitted, connection)
        except (anyio.EndOfStream, anyio.IncompleteRead, anyio.BrokenResourceError, anyio.ClosedResourceError):
            pass  # the shim went; its supervisor watches the process
        except frames.BrokenFrame as error:
            log.warning("closed a local connection that sent nonsense: %s", error)
        except Exception:
            # One connection must not end the daemon, and with it the others.
            log.exception("a local connection failed")

    async def forward(self, door: JobAccess, call: frames.Call) -> Executed:
        """Return the Execution API's answer to a call that must not be spooled; waits as long as central is away."""
        executed = await self._in_turn(door, call)
        assert executed is not None, "only a call that may be spooled has no answer"
        return executed

    async def _admit(self, connection: Connection) -> JobAccess | frames.HostHello | None:
        with anyio.move_on_after(HELLO_TIMEOUT_S):
            hello = await connection.receive()
            if isinstance(hello, frames.HostHello):
                if self.hosts and await self.hosts.knows(hello):
                    return hello
                log.warning("refused a local connection of the trigger host %s: unknown, or with a wrong key", hello.host_id[:64])
                # One that we know nothing of must not run on: what it runs is started again elsewhere.
                await connection.send(frames.KeepTriggers())
                await connection.send(frames.Leave())
                return None
            if not isinstance(hello, frames.Hello):
                raise frames.BrokenFrame(f"expected hello, got {type(hello).__name__}")
            door = self._doors.get(hello.job_id)
            known = door.key if door else "0" * 32
            if hmac.compare_digest(known.encode(), hello.key.encode()) and door:
                door.on_hello(hello.pid)
                _notice(door)  # it may have spooled while there was no daemon
                return door
            log.warning("refused a local connection for job %s: %s", hello.job_id[:64], "wrong key" if door else "not held")
            if door is None:
                await connection.send(frames.Stop(reason=StopReason.GONE.value, detail="this worker holds no such job"))
        return None

    async def _converse(self, door: JobAccess, connection: Connection) -> None:
        door.connections.add(connection)
        try:
            if door.stop:
                await connection.send(door.stop)
            async with anyio.create_task_group() as calls:
                try:
                    while True:
                        frame = await connection.receive()
                        if isinstance(frame, frames.Spooled):
                            _notice(door)
                            continue
                        if not isinstance(frame, frames.Call):
                            raise frames.BrokenFrame(f"expected call, got {type(frame).__name__}")
                        calls.start_soon(self._serve_call, door, connection, frame, name=f"call {frame.id} of {door.lease}")
                except (anyio.EndOfStream, anyio.IncompleteRead, anyio.BrokenResourceError):
                    calls.cancel_scope.cancel()
        finally:
            door.connections.discard(connection)

    async def _serve_call(self, door: JobAccess, connection: Connection, call: frames.Call) -> None:
        if not (_is_accept(call) or frames.OWN_CALL.match(call.path)):
            door.on_begun()
        executed = await (self._try(door, call) if call.may_spool else self._in_turn(door, call))
        reply: msgspec.Struct = frames.Spool(id=call.id)
        if executed is not None:
            reply = frames.Answer(id=call.id, status=executed.status, headers=executed.headers, body=executed.body)
        with contextlib.suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
            await connection.send(reply)

    async def _try(self, door: JobAccess, call: frames.Call) -> Executed | None:
        """Return the Execution API's answer; None if the shim had better keep the call: central is away, or earlier ones wait."""
        if self._link.is_down or (door.outbox and door.outbox.waits):
            return None
        with anyio.move_on_after(PATIENCE_S + len(call.body) / BYTES_PER_S):
            # Cut off here it may have been done all the same; done again it changes nothing (`shim/writes.py`).
            return await self._execute(door, call)
        return None

    async def _in_turn(self, door: JobAccess, call: frames.Call) -> Executed | None:
        """Return the Execution API's answer, once central has heard what the task wrote before."""
        if door.outbox and door.outbox.waits:
            async with anyio.create_task_group() as waiting:
                waiting.start_soon(self._until_delivered, door.outbox, waiting.cancel_scope, name=f"delivery of {door.lease}")
                await door.stopped.wait()
                waiting.cancel_scope.cancel()
            if door.stopped.is_set() and door.outbox.waits:
                return _gone("the job is being stopped and central has not heard its writes yet")
        return await self._execute(door, call)

    async def _until_delivered(self, outbox: UndeliveredWrites, scope: anyio.CancelScope) -> None:
        await outbox.until_empty()
        scope.cancel()

    async def _execute(self, door: JobAccess, call: frames.Call) -> Executed | None:
        """Return the Execution API's answer; waits as long as central is away and the job is wanted.

        None: central can't be reached, and the call need not wait for it.
        """
        attempts = Attempts(self._link, self._clock, floor_s=RETRY_FLOOR_S)
        conflicts_left = 0
        if door.outbox and (lost_at := door.outbox.lost_at) is not None:
            call = failed_instead(call, lost_at=lost_at)
        while True:
            try:
                executed = await self._ask(door.lease, call)
            except Superseded as error:
                door.on_superseded()
                return _gone(str(error))
            except Refused as error:
                if error.concerns_one_request and error.problem:
                    return _told(error.problem.status, str(error))
                # The worker as a whole is refused: the poll loop hears that too and ends the daemon; a later one serves the call.
                wait_s = attempts.next_s()
            except RETRIED as error:
                wait_s = attempts.next_s(error)
                if isinstance(error, Unreachable):
                    conflicts_left = MOST_CONFLICTS  # it may have arrived all the same, and still be under way
            else:
                if not (conflicts_left and collides(call, executed.status)):
                    if executed.status < 300 and _accepts(call):
                        door.on_accepted()
                    return executed
                conflicts_left -= 1
                wait_s = attempts.next_s()
            if call.may_spool and not door.stopped.is_set():
                return None
            if await self._wait(door, wait_s):
                return _gone("the job is being stopped and central can't be reached")

    async def _ask(self, lease: Lease, call: frames.Call) -> Executed:
        if _is_accept(call):
            await self._link.accept(lease)
            return Executed(204, {}, b"")
        return await self._link.execution(lease, call.method, call.path, call.headers, call.body)

    async def _wait(self, door: JobAccess, seconds: float) -> bool:
        """Wait for the next attempt; True if the job is to stop."""

        async def wait_for_central() -> None:
            await self._link.wait_for_contact(seconds)
            waiting.cancel_scope.cancel()

        async with anyio.create_task_group() as waiting:
            waiting.start_soon(wait_for_central, name=f"wait for central {door.lease}")
            await door.stopped.wait()
            waiting.cancel_scope.cancel()
        return door.stopped.is_set()

    async def _push(self, connection: Connection, stop: frames.Stop) -> None:
        with contextlib.suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
            await connection.send(stop)


def _notice(door: JobAccess) -> None:
    if door.outbox:
        door.outbox.notice()


def _is_accept(call: frames.Call) -> bool:
    return call.method == "POST" and call.path == frames.ACCEPT


def _accepts(call: frames.Call) -> bool:
    return _is_accept(call) or (call.method == "PATCH" and RUN_CALL.match(call.path) is not None)


def _gone(detail: str) -> Executed:
    return _told(GONE, detail)


def _told(status: int, detail: str) -> Executed:
    """An answer in the Execution API's own shape of an error."""
    body = msgspec.json.encode({"detail": {"reason": "airflow-remote", "message": detail}})
    return Executed(status, {"content-type": "application/json"}, body)
