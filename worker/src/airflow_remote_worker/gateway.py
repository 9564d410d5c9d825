"""The local gateway: shims send their Execution API calls here and receive stops. A unix socket that only this user can open.

Owns the authentication of shims (a key per job), the wait while central can't be reached, and the order between the writes in a
job's outbox and the task's next call. It does not interpret calls, with one exception: a job is accepted when its task's `run`
call has succeeded, or, for other kinds of jobs, with :data:`.frames.ACCEPT`.
"""

from __future__ import annotations

import contextlib
import hmac
import logging
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
from airflow_remote_worker.lost_writes import may_collide, replace_with_failure
from airflow_remote_worker.system import sockets

log = logging.getLogger(__name__)

HELLO_TIMEOUT_S = 10.0
RETRY_FLOOR_S = 0.5
MOST_CONFLICTS = 5
"""How often a call is repeated on a conflict, if an earlier copy of it may still be in progress at central."""
TRY_BEFORE_SPOOLING_S = 10.0
"""How long a call that may be spooled is tried first. A silent loss of packets is noticed only after 30 s; a slow line needs some
seconds for a large XCom, which would otherwise be sent twice."""
GONE = 410
"""On 404, 409 and 410 the Task SDK's supervisor ends the task."""


def _nothing() -> None:
    """The default callback."""


class UndeliveredWrites(Protocol):
    """The writes of a job's task that central has not received yet. Implemented by the part that delivers them."""

    @property
    def waits(self) -> bool: ...

    def notice(self) -> None: ...

    async def until_empty(self) -> None: ...

    @property
    def lost_at(self) -> float | None:
        """When central refused a write that was reported to the task as written; None: never."""
        ...


@dataclass
class JobAccess:
    """One job's access to the gateway."""

    lease: Lease
    key: str
    on_accepted: Callable[[], None] = _nothing
    """Called when the `run` call has succeeded: the offer is accepted."""
    on_begun: Callable[[], None] = _nothing
    """Called when the task's own code makes a call."""
    on_superseded: Callable[[], None] = _nothing
    """Called when central answers that this lease has been superseded."""
    on_hello: Callable[[int], None] = lambda pid: None
    """Called with the pid of the job's shim when it connects."""
    outbox: UndeliveredWrites | None = None
    stop: frames.Stop | None = None
    """Sent on every connection, present and later."""
    stopped: anyio.Event = field(default_factory=anyio.Event)
    connections: set[Connection] = field(default_factory=set)


class Connection:
    """One connection of a shim. Serialises writes, so that frames never mix."""

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


class HostConversations(Protocol):
    """Serves the connections of trigger hosts. Connected by the daemon."""

    async def knows(self, hello: frames.HostHello) -> bool: ...

    async def converse(self, hello: frames.HostHello, connection: Connection) -> None: ...


class LocalGateway:
    """Listens at *path* and passes calls on through *link*."""

    hosts: HostConversations | None = None

    def __init__(self, path: Path, link: Link, clock: Clock) -> None:
        self.path = path
        self._link = link
        self._clock = clock
        self._accesses: dict[str, JobAccess] = {}
        self._tasks: anyio.abc.TaskGroup | None = None

    def open(self, access: JobAccess) -> None:
        """Accept connections of this job's shim from now on. A later lease of the same job replaces an earlier one."""
        self._accesses[access.lease.job_id] = access

    def close(self, lease: Lease) -> None:
        """Accept no more connections for this lease."""
        if (access := self._accesses.get(lease.job_id)) and access.lease == lease:
            del self._accesses[lease.job_id]

    def stop(self, lease: Lease, stop: frames.Stop) -> None:
        """Send *stop* to the job's shim now, or as soon as it connects."""
        access = self._accesses.get(lease.job_id)
        if access is None or access.lease != lease:
            return
        access.stop = stop
        access.stopped.set()
        for connection in list(access.connections):
            if self._tasks:
                self._tasks.start_soon(self._push, connection, stop, name=f"stop {lease}")

    async def serve(self, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled."""
        listener = await sockets.listen(self.path)
        async with listener, anyio.create_task_group() as tasks:
            self._tasks = tasks
            task_status.started()
            await listener.serve(self._serve_connection, tasks)

    async def _serve_connection(self, stream: anyio.abc.SocketStream) -> None:
        connection = Connection(stream)
        try:
            async with stream:
                admitted = await self._authenticate(connection)
                if isinstance(admitted, JobAccess):
                    await self._serve_job(admitted, connection)
                elif admitted is not None and self.hosts:
                    await self.hosts.converse(admitted, connection)
        except (anyio.EndOfStream, anyio.IncompleteRead, anyio.BrokenResourceError, anyio.ClosedResourceError):
            pass  # the shim has closed; the supervisor watches its process
        except frames.BrokenFrame as error:
            log.warning("closed a local connection that sent an invalid frame: %s", error)
        except Exception:
            # A bug in what serves one connection. It must not end the daemon; the shim connects again.
            log.exception("a local connection failed")

    async def forward(self, access: JobAccess, call: frames.Call) -> Executed:
        """Return the Execution API's answer to a call that must not be spooled; waits while central can't be reached."""
        executed = await self._execute_in_order(access, call)
        assert executed is not None, "only a call that may be spooled has no answer"
        return executed

    async def _authenticate(self, connection: Connection) -> JobAccess | frames.HostHello | None:
        with anyio.move_on_after(HELLO_TIMEOUT_S):
            hello = await connection.receive()
            if isinstance(hello, frames.HostHello):
                if self.hosts and await self.hosts.knows(hello):
                    return hello
                log.warning(
                    "refused a local connection of the trigger host %s: the host is unknown or its key is wrong",
                    hello.host_id[:64],
                )
                # An unknown host must end: central starts its triggers again elsewhere.
                await connection.send(frames.KeepTriggers())
                await connection.send(frames.Leave())
                return None
            if not isinstance(hello, frames.Hello):
                raise frames.BrokenFrame(f"expected hello, got {type(hello).__name__}")
            access = self._accesses.get(hello.job_id)
            known = access.key if access else "0" * 32
            if hmac.compare_digest(known.encode(), hello.key.encode()) and access:
                access.on_hello(hello.pid)
                _notice(access)  # it may have spooled while no daemon ran
                return access
            log.warning(
                "refused a local connection for job %s: %s",
                hello.job_id[:64],
                "wrong key" if access else "this worker does not hold it",
            )
            if access is None:
                await connection.send(frames.Stop(reason=StopReason.GONE.value, detail="this worker holds no such job"))
        return None

    async def _serve_job(self, access: JobAccess, connection: Connection) -> None:
        access.connections.add(connection)
        try:
            if access.stop:
                await connection.send(access.stop)
            async with anyio.create_task_group() as calls:
                try:
                    while True:
                        frame = await connection.receive()
                        if isinstance(frame, frames.Spooled):
                            _notice(access)
                            continue
                        if not isinstance(frame, frames.Call):
                            raise frames.BrokenFrame(f"expected call, got {type(frame).__name__}")
                        calls.start_soon(self._serve_call, access, connection, frame, name=f"call {frame.id} of {access.lease}")
                except (anyio.EndOfStream, anyio.IncompleteRead, anyio.BrokenResourceError):
                    calls.cancel_scope.cancel()
        finally:
            access.connections.discard(connection)

    async def _serve_call(self, access: JobAccess, connection: Connection, call: frames.Call) -> None:
        if not (_is_accept(call) or frames.OWN_CALL.match(call.path)):
            access.on_begun()
        executed = await (self._execute_or_spool(access, call) if call.may_spool else self._execute_in_order(access, call))
        reply: msgspec.Struct = frames.Spool(id=call.id)
        if executed is not None:
            reply = frames.Answer(id=call.id, status=executed.status, headers=executed.headers, body=executed.body)
        with contextlib.suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
            await connection.send(reply)

    async def _execute_or_spool(self, access: JobAccess, call: frames.Call) -> Executed | None:
        """Return the Execution API's answer; None if the shim should spool the call, as central is down or earlier calls wait."""
        if self._link.is_down or (access.outbox and access.outbox.waits):
            return None
        with anyio.move_on_after(TRY_BEFORE_SPOOLING_S + len(call.body) / BYTES_PER_S):
            # A call cut off here may still have been executed; repeating it has no further effect (`shim/writes.py`).
            return await self._execute(access, call)
        return None

    async def _execute_in_order(self, access: JobAccess, call: frames.Call) -> Executed | None:
        """Return the Execution API's answer, after the task's earlier writes have been delivered."""
        if access.outbox and access.outbox.waits:
            async with anyio.create_task_group() as waiting:
                waiting.start_soon(self._until_delivered, access.outbox, waiting.cancel_scope, name=f"delivery of {access.lease}")
                await access.stopped.wait()
                waiting.cancel_scope.cancel()
            if access.stopped.is_set() and access.outbox.waits:
                return _gone("the job is being stopped and its earlier writes are not delivered to central yet")
        return await self._execute(access, call)

    async def _until_delivered(self, outbox: UndeliveredWrites, scope: anyio.CancelScope) -> None:
        await outbox.until_empty()
        scope.cancel()

    async def _execute(self, access: JobAccess, call: frames.Call) -> Executed | None:
        """Return the Execution API's answer; waits while central can't be reached and the job is not stopped.

        None: central can't be reached, and the call may be spooled.
        """
        attempts = Attempts(self._link, self._clock, floor_s=RETRY_FLOOR_S)
        conflicts_left = 0
        if access.outbox and (lost_at := access.outbox.lost_at) is not None:
            call = replace_with_failure(call, lost_at=lost_at)
        while True:
            try:
                executed = await self._call(access.lease, call)
            except Superseded as error:
                access.on_superseded()
                return _gone(str(error))
            except Refused as error:
                if error.concerns_one_request and error.problem:
                    return _error(error.problem.status, str(error))
                # Central refuses the worker itself: the poll loop ends the daemon for the same reason; a later daemon serves the
                # call.
                wait_s = attempts.next_s()
            except RETRIED as error:
                wait_s = attempts.next_s(error)
                if isinstance(error, Unreachable):
                    conflicts_left = MOST_CONFLICTS  # it may have arrived and still be in progress
            else:
                if not (conflicts_left and may_collide(call, executed.status)):
                    if executed.status < 300 and _accepts(call):
                        access.on_accepted()
                    return executed
                conflicts_left -= 1
                wait_s = attempts.next_s()
            if call.may_spool and not access.stopped.is_set():
                return None
            if await self._wait(access, wait_s):
                return _gone("the job is being stopped and central can't be reached")

    async def _call(self, lease: Lease, call: frames.Call) -> Executed:
        if _is_accept(call):
            await self._link.accept(lease)
            return Executed(204, {}, b"")
        return await self._link.execution(lease, call.method, call.path, headers=call.headers, body=call.body)

    async def _wait(self, access: JobAccess, seconds: float) -> bool:
        """Wait for the next attempt; return True if the job is to be stopped."""

        async def wait_for_central() -> None:
            await self._link.wait_for_contact(seconds)
            waiting.cancel_scope.cancel()

        async with anyio.create_task_group() as waiting:
            waiting.start_soon(wait_for_central, name=f"wait for central {access.lease}")
            await access.stopped.wait()
            waiting.cancel_scope.cancel()
        return access.stopped.is_set()

    async def _push(self, connection: Connection, stop: frames.Stop) -> None:
        with contextlib.suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
            await connection.send(stop)


def _notice(access: JobAccess) -> None:
    if access.outbox:
        access.outbox.notice()


def _is_accept(call: frames.Call) -> bool:
    return call.method == "POST" and call.path == frames.ACCEPT


def _accepts(call: frames.Call) -> bool:
    if _is_accept(call):
        return True
    own = frames.OWN_CALL.match(call.path) if call.method == "PATCH" else None
    return own is not None and (own["of"], own["verb"]) == ("task-instances", "run")


def _gone(detail: str) -> Executed:
    return _error(GONE, detail)


def _error(status: int, detail: str) -> Executed:
    """Return an error in the format of the Execution API."""
    body = msgspec.json.encode({"detail": {"reason": "airflow-remote", "message": detail}})
    return Executed(status, {"content-type": "application/json"}, body)
