"""The logs of many triggers in few requests, against the fake central."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio
import msgspec
import pytest
from airflow_remote_protocol.messages import Enrolment, Facts, JobKind, LogChunks, Poll, SessionRequest
from airflow_remote_protocol.version import PROTOCOL_VERSION, Capability
from airflow_remote_worker.clock import SystemClock
from airflow_remote_worker.lease import Lease
from airflow_remote_worker.link.client import Link
from airflow_remote_worker.link.network import Network
from airflow_remote_worker.loops import ship_triggers
from airflow_remote_worker.loops.ship_triggers import ShipTriggersLoop
from airflow_remote_worker.testing.fake_central import FakeCentral
from airflow_remote_worker.triggers.log import PendingLog
from airflow_remote_worker.triggers.spool import TriggerDir
from airflow_remote_worker.triggers.trigger import Stage, Trigger


class Bench:
    """A loop, its triggers, and the triggers whose whole logs have been shipped."""

    def __init__(self, central: FakeCentral, link: Link, root: Path) -> None:
        self.central = central
        self.flushed: list[Trigger] = []
        self.loop = ShipTriggersLoop(link, SystemClock(), self.flushed.append)
        self._link = link
        self._root = root

    async def triggers(self, count: int) -> list[Trigger]:
        for _ in range(count):
            self.central.enqueue("q", kind=JobKind.TRIGGER)
        reply = await self._link.poll(Poll(free_slots=0, intent_revision=0, wait_s=5, free_triggers=count))
        made = []
        for offer in reply.offers:
            lease = Lease(offer.job_id, offer.epoch)
            await self._link.accept(lease)
            path = self._root / offer.job_id
            path.mkdir()
            made.append(Trigger(lease, TriggerDir(path, lease), PendingLog(path), "q", 3000.0, Stage.HOSTED))
        return made

    def log(self, trigger: Trigger, text: bytes) -> None:
        trigger.log.append(text)
        self.loop.log_grew(trigger)

    def at_central(self, trigger: Trigger) -> bytes:
        return self.central.log_bytes(trigger.lease.job_id)

    def requests(self) -> int:
        return len([request for request in self.central.requests if request.path == "logs"])

    async def until(self, holds: Callable[[], bool]) -> None:
        with anyio.fail_after(60):
            while not holds():
                await anyio.sleep(0.01)


Story = Callable[[Bench], Awaitable[None]]


@pytest.fixture
def run(central: FakeCentral, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Story], None]:
    monkeypatch.setattr(ship_triggers, "EVERY_S", 0.5)
    monkeypatch.setattr(ship_triggers, "URGENT_S", 0.1)
    monkeypatch.setattr(ship_triggers, "GATHER_S", 0.05)

    async def main(story: Story) -> None:
        clock = SystemClock()
        first = Link(Network(central=central.url), credential=central.enrolment_token(["q"]), clock=clock)
        enrolled = await first.enrol(Enrolment(name="w1"))
        await first.close()
        link = Link(Network(central=central.url), credential=enrolled.credential, clock=clock)
        request = SessionRequest(
            instance_id="i",
            boot_id="b",
            protocol=PROTOCOL_VERSION,
            capabilities=[capability.value for capability in Capability if capability is not Capability.RUNTIMES],
            slots=1,
            facts=Facts(hostname="h"),
            triggers=1000,
        )
        await link.open_session(request)
        bench = Bench(central, link, tmp_path)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(bench.loop.run)
            await story(bench)
            tasks.cancel_scope.cancel()
        await link.close()

    return lambda story: anyio.run(main, story)


def test_the_logs_of_many_triggers_take_one_request(run: Callable[[Story], None]) -> None:
    async def story(bench: Bench) -> None:
        triggers = await bench.triggers(50)
        for trigger in triggers:
            bench.log(trigger, f"{trigger.lease.job_id}\n".encode())
        await bench.until(lambda: all(not trigger.log.size for trigger in triggers))
        assert bench.requests() == 1
        for trigger in triggers:
            assert bench.at_central(trigger) == f"{trigger.lease.job_id}\n".encode()

    run(story)


def test_logs_larger_than_a_request_take_several(run: Callable[[Story], None]) -> None:
    async def story(bench: Bench) -> None:
        triggers = await bench.triggers(12)
        text = b'{"event": "' + b'\\"' * 90_000 + b'"}\n'  # each byte of it takes two in the request
        for trigger in triggers:
            bench.log(trigger, text)
        await bench.until(lambda: all(not trigger.log.size for trigger in triggers))
        assert all(bench.at_central(trigger) == text for trigger in triggers)
        assert bench.requests() > 2
        assert all(len(request.body) < 1 << 20 for request in bench.central.requests_to("logs"))

    run(story)


def test_without_gzip_a_request_fits_as_well(run: Callable[[Story], None]) -> None:
    async def story(bench: Bench) -> None:
        bench.loop.gzip = False
        triggers = await bench.triggers(5)
        text = b'{"event": "' + b'\\"' * 90_000 + b'"}\n'
        for trigger in triggers:
            bench.log(trigger, text)
        await bench.until(lambda: all(bench.at_central(trigger) == text for trigger in triggers))
        bodies = [request.body for request in bench.central.requests_to("logs")]
        assert all(msgspec.json.decode(body, type=LogChunks).chunks for body in bodies)

    run(story)


def test_an_ended_trigger_is_flushed_once_central_has_all_of_its_log(run: Callable[[Story], None]) -> None:
    async def story(bench: Bench) -> None:
        silent, talks = await bench.triggers(2)
        bench.log(talks, b"one\ntwo\n")
        for trigger in (silent, talks):
            bench.loop.flush(trigger)
        await bench.until(lambda: len(bench.flushed) == 2)
        assert bench.at_central(talks) == b"one\ntwo\n"

    run(story)


def test_the_log_of_an_ended_trigger_ends_when_its_host_says_so(run: Callable[[Story], None]) -> None:
    async def story(bench: Bench) -> None:
        trigger, other = await bench.triggers(2)
        trigger.log_is_open = True
        bench.log(trigger, b"fired\n")
        bench.loop.flush(trigger)
        for n in range(3):  # each of these needs a round, in which nothing of the open log is pending
            bench.log(other, f"{n}\n".encode())
            await bench.until(lambda: not other.log.size)
        assert bench.at_central(trigger) == b"fired\n"
        assert bench.flushed == []
        bench.log(trigger, b"completed\n")
        trigger.log_is_open = False
        bench.loop.log_grew(trigger)
        await bench.until(lambda: bench.flushed)
        assert bench.at_central(trigger) == b"fired\ncompleted\n"

    run(story)


def test_an_open_log_that_central_refuses_keeps_nothing(run: Callable[[Story], None]) -> None:
    async def story(bench: Bench) -> None:
        (one,) = await bench.triggers(1)
        foreign = Trigger(Lease("no-such-job", 1), one.dir, PendingLog(one.dir.path), "q", 1.0, log_is_open=True)
        bench.log(foreign, b"unwanted\n")
        bench.loop.flush(foreign)
        await bench.until(lambda: bench.flushed == [foreign])

    run(story)


def test_a_lost_reply_and_an_outage_neither_lose_nor_repeat_a_line(run: Callable[[Story], None]) -> None:
    async def story(bench: Bench) -> None:
        (trigger,) = await bench.triggers(1)
        bench.central.drop_next_reply("logs")
        bench.central.drop_next_reply("logs")
        bench.log(trigger, b"one\n")
        await bench.until(lambda: not trigger.log.size)
        bench.central.go_down()
        bench.log(trigger, b"two\n")
        await anyio.sleep(1)
        bench.central.come_back()
        bench.log(trigger, b"three\n")
        await bench.until(lambda: bench.at_central(trigger) == b"one\ntwo\nthree\n")

    run(story)


def test_a_refused_log_is_given_up_and_does_not_affect_others(run: Callable[[Story], None]) -> None:
    async def story(bench: Bench) -> None:
        one, other = await bench.triggers(2)
        foreign = Trigger(Lease("no-such-job", 1), one.dir, PendingLog(one.dir.path), "q", 1.0)
        bench.log(foreign, b"unwanted\n")
        bench.log(other, b"wanted\n")
        for trigger in (foreign, other):
            bench.loop.flush(trigger)
        await bench.until(lambda: len(bench.flushed) == 2)
        assert bench.at_central(other) == b"wanted\n"
        assert foreign.log.is_refused

    run(story)


def test_a_thousand_triggers_that_log_cause_few_requests() -> None:
    rounds_a_second = 1 / ship_triggers.EVERY_S
    assert rounds_a_second * 1000 / ship_triggers.MAX_CHUNKS < 1.0
