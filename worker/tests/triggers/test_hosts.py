"""Which host a trigger gets, and when a host ends. Hosts are `sleep` processes here."""

from __future__ import annotations

import subprocess
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import anyio
import msgspec
import pytest
from airflow_remote_worker.config import Config
from airflow_remote_worker.jobs import process
from airflow_remote_worker.jobs.process import CannotHost
from airflow_remote_worker.jobs.site import Site
from airflow_remote_worker.lease import SITE, Lease
from airflow_remote_worker.local import frames
from airflow_remote_worker.state.directory import State
from airflow_remote_worker.state.spool import ShimRecord
from airflow_remote_worker.triggers import hosts as hosts_module
from airflow_remote_worker.triggers.host import HostedCode, TriggerHost
from airflow_remote_worker.triggers.hosts import IDLE_S, MEET_WITHIN_S, Hosts, TooManyHosts
from airflow_remote_worker.triggers.log import PendingLog
from airflow_remote_worker.triggers.spool import TriggerDir
from airflow_remote_worker.triggers.trigger import Trigger

from ..conftest import HandClock


class SleepStarter:
    """Starts a process that does nothing."""

    def __init__(self) -> None:
        self.started: list[subprocess.Popen[bytes]] = []
        self.may_start = anyio.Event()
        self.may_start.set()
        self.error: Exception | None = None

    async def launch(self, job_dir: Path, *, runtime: str = SITE) -> ShimRecord:
        await self.may_start.wait()
        if self.error:
            raise self.error
        started = subprocess.Popen(["sleep", "600"], start_new_session=True)
        self.started.append(started)
        process.keep_child(started)
        return process.record(frames.Spawned(str(job_dir), started.pid, 0.0))


class Bench:
    def __init__(self, state: State, clock: HandClock, root: Path) -> None:
        self.starter = SleepStarter()
        self.clock = clock
        self.hosts = Hosts(
            state.hosts, site=Site(Config(state=state.root), "w1", root / "s", root / "c"), starter=self.starter, clock=clock
        )
        self.died: list[tuple[TriggerHost, list[Trigger]]] = []
        self.hosts.on_died = lambda host, triggers, how: self.died.append((host, triggers))
        self.code = self.code_of("dags", root)
        self._root = root
        self._number = 0

    def code_of(self, name: str, root: Path) -> HostedCode:
        (root / name).mkdir(exist_ok=True)
        return HostedCode(name, str(root / name), "")

    def trigger(self) -> Trigger:
        self._number += 1
        lease = Lease(f"job-{self._number}", 1)
        return Trigger(lease, TriggerDir(self._root, lease), PendingLog(self._root), "q", 1.0)

    async def until(self, holds: Callable[[], object]) -> None:
        with anyio.fail_after(60):
            while not holds():
                await anyio.sleep(0.01)


Story = Callable[[Bench], Awaitable[None]]


@pytest.fixture
def run(state: State, clock: HandClock, tmp_path: Path) -> Iterator[Callable[[Story], Bench]]:
    benches = []

    def run(story: Story) -> Bench:
        async def main() -> Bench:
            bench = Bench(state, clock, tmp_path)
            benches.append(bench)
            async with anyio.create_task_group() as tasks:
                bench.hosts._tasks = tasks  # without its loop, which would sleep on the test's manual clock
                await story(bench)
                tasks.cancel_scope.cancel()
            return bench

        return anyio.run(main)

    yield run
    for bench in benches:
        for started in bench.starter.started:
            started.kill()
            started.wait()


def test_triggers_of_one_bundle_share_a_host_and_those_of_another_do_not(run: Callable[[Story], Bench], tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        first, second = [await bench.hosts.reserve(bench.trigger(), bench.code) for _ in range(2)]
        other = await bench.hosts.reserve(bench.trigger(), bench.code_of("others", tmp_path))
        as_someone = await bench.hosts.reserve(bench.trigger(), HostedCode("dags", bench.code.bundle_path, "nobody"))
        assert first is second
        assert len({host.spec.host_id for host in (first, other, as_someone)}) == 3

    run(story)


def test_after_a_change_of_central_s_settings_new_triggers_get_a_new_host(run: Callable[[Story], Bench]) -> None:
    async def story(bench: Bench) -> None:
        bench.hosts.task_settings = lambda: "before"
        first, second = [await bench.hosts.reserve(bench.trigger(), bench.code) for _ in range(2)]
        bench.hosts.task_settings = lambda: "after"
        third = await bench.hosts.reserve(bench.trigger(), bench.code)
        assert first is second is not third
        assert len(first.triggers) == 2, "those that run go on"

    run(story)


def test_many_triggers_at_once_start_one_host(run: Callable[[Story], Bench]) -> None:
    async def story(bench: Bench) -> None:
        bench.starter.may_start = anyio.Event()
        async with anyio.create_task_group() as tasks:
            for _ in range(50):
                tasks.start_soon(bench.hosts.reserve, bench.trigger(), bench.code)
            await anyio.sleep(0.05)
            bench.starter.may_start.set()
        assert len(bench.starter.started) == 1

    run(story)


def test_a_host_that_connects_before_its_start_has_returned_waits_for_that(run: Callable[[Story], Bench], state: State) -> None:
    """Otherwise the gateway would refuse it as unknown, and the triggers that it was started for would hang."""

    async def story(bench: Bench) -> None:
        bench.starter.may_start = anyio.Event()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(bench.hosts.reserve, bench.trigger(), bench.code)
            await bench.until(lambda: list(state.hosts.iterdir()))
            [host_id] = [path.name for path in state.hosts.iterdir()]
            with anyio.move_on_after(0.1) as waited:
                await bench.hosts.wait_until_started(host_id)
            assert waited.cancelled_caught
            bench.starter.may_start.set()
            await bench.hosts.wait_until_started(host_id)
            assert host_id in bench.hosts.all

    run(story)


def test_a_trigger_that_is_stopped_while_its_host_starts_interrupts_nothing(run: Callable[[Story], Bench]) -> None:
    async def story(bench: Bench) -> None:
        bench.starter.may_start = anyio.Event()
        with anyio.move_on_after(0.2):
            await bench.hosts.reserve(bench.trigger(), bench.code)
        bench.starter.may_start.set()
        await bench.until(lambda: bench.hosts.all)
        assert await bench.hosts.reserve(bench.trigger(), bench.code) is next(iter(bench.hosts.all.values()))

    run(story)


def test_a_host_that_can_t_start_leaves_nothing_behind(run: Callable[[Story], Bench], state: State) -> None:
    async def story(bench: Bench) -> None:
        bench.starter.error = CannotHost("no runtime")
        with pytest.raises(CannotHost):
            await bench.hosts.reserve(bench.trigger(), bench.code)
        assert not list(state.hosts.iterdir())

    run(story)


def test_the_number_of_hosts_is_limited(run: Callable[[Story], Bench], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosts_module, "MOST_HOSTS", 2)

    async def story(bench: Bench) -> None:
        for n in range(2):
            await bench.hosts.reserve(bench.trigger(), bench.code_of(f"bundle{n}", tmp_path))
        with pytest.raises(TooManyHosts, match="2 trigger hosts"):
            await bench.hosts.reserve(bench.trigger(), bench.code)

    run(story)


def test_an_idle_host_is_ordered_to_leave_and_gets_no_more_triggers(run: Callable[[Story], Bench]) -> None:
    async def story(bench: Bench) -> None:
        trigger = bench.trigger()
        host = await bench.hosts.reserve(trigger, bench.code)
        send, receive = anyio.create_memory_object_stream[msgspec.Struct](10)
        host.outgoing, host.has_connected = send, True
        bench.hosts.release(trigger)
        bench.hosts._check_hosts()
        assert not host.is_leaving
        bench.clock.now += IDLE_S + 1
        bench.hosts._check_hosts()
        assert isinstance(receive.receive_nowait(), frames.Leave)
        assert await bench.hosts.reserve(bench.trigger(), bench.code) is not host
        send.close()
        receive.close()

    run(story)


def test_a_host_that_never_connects_is_ended_and_its_triggers_are_reported(run: Callable[[Story], Bench]) -> None:
    async def story(bench: Bench) -> None:
        trigger = bench.trigger()
        host = await bench.hosts.reserve(trigger, bench.code)
        bench.clock.now += MEET_WITHIN_S + 1
        bench.hosts._check_hosts()
        await bench.until(lambda: bench.died)
        assert bench.died == [(host, [trigger])]
        assert trigger.host is None
        assert not host.dir.exists()

    run(story)


def test_after_a_second_death_each_trigger_starts_alone(run: Callable[[Story], Bench]) -> None:
    async def story(bench: Bench) -> None:
        triggers = [bench.trigger() for _ in range(3)]
        for deaths in (1, 2):
            hosts = [await bench.hosts.reserve(trigger, bench.code) for trigger in triggers]
            assert len({id(host) for host in hosts}) == 1
            process.kill(hosts[0].process)
            await bench.until(lambda deaths=deaths: len(bench.died) == deaths)  # type: ignore[misc]
        hosts = [await bench.hosts.reserve(trigger, bench.code) for trigger in triggers]
        assert len({id(host) for host in hosts}) == 3

    run(story)


def test_the_next_daemon_adopts_live_hosts_and_removes_dead_ones(run: Callable[[Story], Bench], state: State) -> None:
    async def story(bench: Bench) -> None:
        host = await bench.hosts.reserve(bench.trigger(), bench.code)
        dead = state.hosts / "host-dead"
        dead.mkdir()
        (dead / "host.json").write_bytes(b"{")
        later = Hosts(state.hosts, site=bench.hosts._site, starter=bench.starter, clock=bench.clock)
        later._tasks = bench.hosts._tasks
        later.adopt()
        assert [adopted.spec for adopted in later.all.values()] == [host.spec]
        await bench.until(lambda: not dead.exists())

    run(story)


def test_each_tree_has_its_own_host_and_pins_it(clock: HandClock, state: State, tmp_path: Path) -> None:
    pins = Pins()
    site = Site(Config(state=state.root), "w1", tmp_path / "s", tmp_path / "c", code=pins)  # type: ignore[arg-type]
    starter = SleepStarter()
    hosts = Hosts(state.hosts, site=site, starter=starter, clock=clock)
    trees = [HostedCode("dags", str(tmp_path / name), "", name * 64) for name in "ab"]

    def trigger(number: int) -> Trigger:
        lease = Lease(f"t{number}", 1)
        return Trigger(lease, TriggerDir(tmp_path / f"t{number}", lease), PendingLog(tmp_path / f"t{number}"), "q", 100.0)

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            hosts._tasks = tasks  # without its loop, as in the other tests
            one, same, other = [await hosts.reserve(trigger(n), trees[n // 2]) for n in range(3)]
            assert one is same
            assert one is not other
            assert set(pins.held.values()) == {"a" * 64, "b" * 64}
            assert [one.spec.tree, other.spec.tree] == ["a" * 64, "b" * 64]
            process.kill(one.process)
            with anyio.fail_after(60):
                while one.spec.host_id in pins.held:
                    await anyio.sleep(0.01)
            assert set(pins.held.values()) == {"b" * 64}
            tasks.cancel_scope.cancel()

    try:
        anyio.run(main)
    finally:
        for started in starter.started:
            started.kill()
            started.wait()


class Pins:
    """The part of the worker's code that hosts use."""

    def __init__(self) -> None:
        self.held: dict[object, str] = {}

    def hold(self, holder: object, digest: str) -> None:
        self.held[holder] = digest

    def release(self, holder: object) -> None:
        self.held.pop(holder, None)
