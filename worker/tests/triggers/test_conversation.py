"""The messages that a host may send, and those that it may not: user code controls its connection."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable, Collection
from pathlib import Path

import anyio
import anyio.abc
import pytest
from airflow_remote_worker.gateway import Connection
from airflow_remote_worker.lease import Lease
from airflow_remote_worker.link.client import Executed
from airflow_remote_worker.local import frames, job_files
from airflow_remote_worker.state.spool import ShimRecord
from airflow_remote_worker.triggers.conversation import Conversation
from airflow_remote_worker.triggers.host import TriggerHost
from airflow_remote_worker.triggers.log import PendingLog
from airflow_remote_worker.triggers.spool import TriggerDir
from airflow_remote_worker.triggers.trigger import Stage, Trigger

from ..conftest import HandClock

OURS, THEIRS = Lease("ours", 1), Lease("theirs", 1)


class Bench:
    """Two hosts with a trigger each, and a keeper and a gateway that record their calls."""

    def __init__(self, root: Path, clock: HandClock) -> None:
        self.noted: list[tuple[str, object]] = []
        self.open_logs: list[set[Lease]] = []
        self.all = {name: self._host(name, root) for name in ("one", "two")}
        self.triggers = {lease: self._trigger(lease, self.all[name], root) for lease, name in ((OURS, "one"), (THEIRS, "two"))}
        self.conversation = Conversation(hosts=self, keeper=self, gateway=self, clock=clock)  # type: ignore[arg-type]
        self.path = root / "g.sock"

    def _host(self, name: str, root: Path) -> TriggerHost:
        return TriggerHost(root, job_files.HostSpec(name, f"key of {name}", "", "", "dags", ""), ShimRecord(1, 0.0), 0.0)

    def _trigger(self, lease: Lease, host: TriggerHost, root: Path) -> Trigger:
        trigger = Trigger(lease, TriggerDir(root, lease), PendingLog(root), "q", 1.0, Stage.HOSTED, host, host.spec.host_id)
        host.triggers[lease] = trigger
        return trigger

    # The hosts

    async def wait_until_started(self, host_id: str) -> None:
        """Return at once: no host is being started."""

    # The keeper

    def find(self, lease: Lease) -> Trigger | None:
        return self.triggers.get(lease)

    def claim(self, trigger: Trigger, host: TriggerHost) -> bool:
        return trigger.host is host

    def order(self, trigger: Trigger) -> frames.StartTrigger:
        return frames.StartTrigger(trigger.lease, b"{}")

    def take_event(self, lease: Lease, event: bytes) -> bool:
        self.noted.append(("event", lease))
        return True

    def take_cancelled(self, lease: Lease) -> None:
        self.noted.append(("cancelled", lease))

    def take_lines(self, lease: Lease, text: bytes) -> None:
        self.noted.append(("lines", lease))

    def complete_log(self, trigger: Trigger) -> None:
        self.noted.append(("complete", trigger.lease))

    def reconcile_logs(self, host: TriggerHost, open_logs: Collection[Lease]) -> None:
        self.open_logs.append(set(open_logs))

    def supersede(self, lease: Lease, detail: str = "") -> None:
        self.noted.append(("superseded", lease))

    # The gateway

    async def forward(self, access: object, call: frames.Call) -> Executed:
        self.noted.append(("call", call.path))
        return Executed(200, {}, b"{}")


Story = Callable[[Bench, Connection], Awaitable[None]]


@pytest.fixture
def run(tmp_path: Path, clock: HandClock) -> Callable[..., Bench]:
    """Connect host `one`, then run *story*."""

    def run(
        story: Story,
        leases: list[frames.LeaseName] | None = None,
        stage: Stage = Stage.HOSTED,
        open_logs: list[frames.LeaseName] | None = None,
    ) -> Bench:
        bench = Bench(tmp_path, clock)
        bench.triggers[OURS].stage = stage

        async def main() -> None:
            ours, theirs = socket.socketpair()
            daemon_end, host_end = await _stream(ours), await _stream(theirs)
            hello = frames.HostHello("one", "key of one", 1, [OURS] if leases is None else leases, open_logs)
            async with daemon_end, host_end, anyio.create_task_group() as tasks:
                tasks.start_soon(bench.conversation.converse, hello, Connection(daemon_end))
                await story(bench, Connection(host_end))
                tasks.cancel_scope.cancel()

        anyio.run(main)
        return bench

    return run


async def _stream(end: socket.socket) -> anyio.abc.SocketStream:
    return await anyio.abc.UNIXSocketStream.from_socket(end)


async def next_of(connection: Connection, kind: type) -> frames.Frame:
    with anyio.fail_after(60):
        while not isinstance(frame := await connection.receive(), kind):
            pass
    return frame


def test_only_the_right_key_is_accepted(tmp_path: Path, clock: HandClock) -> None:
    conversation = Bench(tmp_path, clock).conversation
    assert anyio.run(conversation.knows, frames.HostHello("one", "key of one", 1))
    assert not anyio.run(conversation.knows, frames.HostHello("one", "key of two", 1))
    assert not anyio.run(conversation.knows, frames.HostHello("three", "0" * 32, 1))


def test_a_host_first_receives_the_triggers_to_keep_and_to_start(run: Callable[..., Bench]) -> None:
    async def story(bench: Bench, host: Connection) -> None:
        keep = await host.receive()
        assert isinstance(keep, frames.KeepTriggers)
        assert keep.leases == []
        start = await host.receive()
        assert isinstance(start, frames.StartTrigger)
        assert start.lease == OURS

    run(story, [THEIRS, ("unknown", 1)])


def test_a_host_can_not_act_for_another_host_s_trigger(run: Callable[..., Bench]) -> None:
    async def story(bench: Bench, host: Connection) -> None:
        await host.send(frames.Fired(THEIRS, b"{}"))
        await host.send(frames.Cancelled(THEIRS))
        await host.send(frames.Lines(1, [(THEIRS, b"forged\n")], [THEIRS]))
        await next_of(host, frames.LinesTaken)
        await host.send(frames.TriggerCall(7, THEIRS, "GET", "connections/vault", {}))
        answer = await next_of(host, frames.Answer)
        assert isinstance(answer, frames.Answer)
        assert answer.status == 410
        assert bench.noted == []

    run(story)


def test_a_host_acts_for_its_own_trigger(run: Callable[..., Bench]) -> None:
    async def story(bench: Bench, host: Connection) -> None:
        await host.send(frames.Lines(1, [(OURS, b"line\n")], [OURS]))
        await host.send(frames.TriggerCall(7, OURS, "GET", "connections/vault", {}))
        await next_of(host, frames.Answer)
        await host.send(frames.Fired(OURS, b"{}"))
        await next_of(host, frames.Taken)
        assert bench.noted == [("lines", OURS), ("complete", OURS), ("call", "connections/vault"), ("event", OURS)]

    run(story)


def test_a_cancelled_trigger_that_its_host_does_not_name_has_ended(run: Callable[..., Bench]) -> None:
    async def story(bench: Bench, host: Connection) -> None:
        await next_of(host, frames.KeepTriggers)
        assert ("cancelled", OURS) in bench.noted

    run(story, [], stage=Stage.CANCELLING)


def test_a_host_names_the_logs_that_it_has_not_completed(run: Callable[..., Bench]) -> None:
    async def story(bench: Bench, host: Connection) -> None:
        await next_of(host, frames.KeepTriggers)
        assert bench.open_logs == [{OURS}]
        assert bench.all["one"].completes_logs

    run(story, open_logs=[OURS])


def test_a_host_of_an_older_worker_completes_no_logs(run: Callable[..., Bench]) -> None:
    async def story(bench: Bench, host: Connection) -> None:
        await next_of(host, frames.KeepTriggers)
        assert bench.open_logs == [set()]
        assert not bench.all["one"].completes_logs

    run(story)


def test_an_invalid_frame_ends_only_the_connection(run: Callable[..., Bench]) -> None:
    async def story(bench: Bench, host: Connection) -> None:
        await next_of(host, frames.KeepTriggers)
        assert bench.all["one"].outgoing is not None
        await host.send(frames.Leave())
        with anyio.fail_after(60):
            while bench.all["one"].outgoing is not None:
                await anyio.sleep(0.01)

    run(story)
