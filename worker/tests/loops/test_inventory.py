from __future__ import annotations

import anyio
import pytest
from airflow_remote_protocol.errors import ProblemCode, make_problem
from airflow_remote_protocol.messages import HeldRuntime, Inventory, RuntimePhase
from airflow_remote_worker.errors import Superseded, Unreachable, from_problem
from airflow_remote_worker.loops.inventory import PROGRESS_EVERY_S, REFUSED_PAUSE_S, InventoryLoop

from ..conftest import HandClock

pytestmark = pytest.mark.timeout(30)


class Central:
    def __init__(self, *answers: Exception | None) -> None:
        self.answers = list(answers)
        self.received: list[list[str]] = []
        self.runtimes: list[list[str]] = []

    async def report_inventory(self, inventory: Inventory) -> None:
        self.received.append(inventory.trees)
        self.runtimes.append([f"{one.phase.value} {one.detail}".strip() for one in inventory.runtimes])
        if self.answers and (error := self.answers.pop(0)):
            raise error

    async def wait_for_contact(self, at_most_s: float) -> None:
        await anyio.sleep(0)


class Bench:
    def __init__(self, central: Central, clock: HandClock) -> None:
        self.central = central
        self.trees: list[str] = []
        self.runtimes: list[HeldRuntime] = []
        self.loop = InventoryLoop(central, clock, lambda: Inventory(self.trees, self.runtimes))  # type: ignore[arg-type]

    def run(self, *steps: object) -> None:
        async def main() -> None:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self.loop.run)
                for step in steps:
                    step()  # type: ignore[operator]
                    for _ in range(20):
                        await anyio.sleep(0)
                tasks.cancel_scope.cancel()

        anyio.run(main)

    def hold(self, *trees: str) -> None:
        self.trees = list(trees)
        self.loop.note_change()


def test_each_session_and_each_change_is_reported_once(clock: HandClock) -> None:
    bench = Bench(Central(), clock)
    bench.run(
        lambda: bench.hold("a"),
        lambda: bench.loop.on_session(wanted=True),
        lambda: bench.hold("a"),
        lambda: bench.hold("b", "a"),
        lambda: bench.hold("a", "b"),
        lambda: bench.loop.on_session(wanted=True),
    )
    assert bench.central.received == [["a"], ["b", "a"], ["a", "b"]]


def test_the_phase_of_a_runtime_is_reported_at_once_and_its_progress_every_few_seconds(clock: HandClock) -> None:
    bench = Bench(Central(), clock)

    def hold(phase: RuntimePhase, detail: str) -> None:
        bench.runtimes = [HeldRuntime("0" * 64, phase, detail=detail)]
        bench.loop.note_change()

    def later() -> None:
        clock.now += PROGRESS_EVERY_S

    bench.run(
        lambda: bench.loop.on_session(wanted=True),
        lambda: hold(RuntimePhase.PREPARING, "code 1 %"),
        lambda: hold(RuntimePhase.PREPARING, "code 2 %"),
        later,
        lambda: hold(RuntimePhase.PREPARING, "code 3 %"),
        lambda: hold(RuntimePhase.FAILED, "no"),
        lambda: hold(RuntimePhase.FAILED, "no, again"),
    )
    assert bench.central.runtimes == [
        *([], ["preparing code 1 %"], ["preparing code 3 %"], ["failed no"], ["failed no, again"]),
    ]


def test_an_older_central_gets_no_report(clock: HandClock) -> None:
    bench = Bench(Central(), clock)
    bench.run(lambda: bench.loop.on_session(wanted=False), lambda: bench.hold("a"))
    assert bench.central.received == []


@pytest.mark.parametrize("error", [Unreachable("away"), Superseded("the session")])
def test_a_report_that_fails_is_repeated(error: Exception, clock: HandClock) -> None:
    bench = Bench(Central(error, error), clock)
    bench.run(lambda: bench.loop.on_session(wanted=True))
    assert bench.central.received == [[], [], []]


def test_a_refusal_pauses_the_reports(clock: HandClock) -> None:
    refusal = from_problem(make_problem(ProblemCode.INVALID, "no"))
    bench = Bench(Central(refusal), clock)
    bench.run(lambda: bench.loop.on_session(wanted=True))
    assert clock.naps == [REFUSED_PAUSE_S]
    assert bench.central.received == [[], []]


def test_at_most_a_thousand_are_listed_the_last_used_first(clock: HandClock) -> None:
    bench = Bench(Central(), clock)
    bench.run(lambda: bench.hold(*map(str, range(1500))), lambda: bench.loop.on_session(wanted=True))
    assert bench.central.received == [[str(n) for n in range(1000)]]
