from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio
from airflow_remote_protocol.messages import Runtime
from airflow_remote_worker.errors import Unreachable
from airflow_remote_worker.loops.runtime import RuntimeLoop

from ..conftest import HandClock


class Central:
    """Answers reports, first with *answers*, of which exceptions are raised."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.received: list[Runtime] = []

    async def report_runtime(self, runtime: Runtime) -> str:
        self.received.append(runtime)
        answer = self.answers.pop(0) if self.answers else ""
        if isinstance(answer, Exception):
            raise answer
        return str(answer)

    async def wait_for_contact(self, seconds: float) -> None:
        await anyio.sleep(0)


class Site:
    def __init__(self) -> None:
        self.now: Runtime | None = None


def _run(central: Central, site: Site, story: Callable[[RuntimeLoop], Any]) -> RuntimeLoop:
    loop = RuntimeLoop(central, HandClock(), lambda: site.now)  # type: ignore[arg-type]

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(loop.run)
            for step in story(loop):
                await anyio.wait_all_tasks_blocked()
                del step
            await anyio.wait_all_tasks_blocked()
            tasks.cancel_scope.cancel()

    anyio.run(main)
    return loop


def test_the_runtime_is_reported_when_known_when_it_changes_and_in_each_session() -> None:
    central, site = Central(), Site()

    def story(loop: RuntimeLoop) -> Any:
        yield loop.on_session(wanted=True)
        assert central.received == []
        site.now = Runtime(task_sdk="1.3.2")
        yield loop.note_change()
        yield loop.note_change()
        assert len(central.received) == 1
        site.now = Runtime(task_sdk="1.3.2", trouble="broken")
        yield loop.note_change()
        yield loop.on_session(wanted=True)

    _run(central, site, story)
    assert [report.trouble for report in central.received] == ["", "broken", "broken"]


def test_nothing_is_reported_to_a_central_without_that_route() -> None:
    central, site = Central(), Site()
    site.now = Runtime()

    def story(loop: RuntimeLoop) -> Any:
        yield loop.on_session(wanted=False)
        yield loop.note_change()

    _run(central, site, story)
    assert central.received == []


def test_a_report_that_did_not_arrive_is_repeated() -> None:
    central, site = Central(Unreachable("away"), Unreachable("away")), Site()
    site.now = Runtime()

    def story(loop: RuntimeLoop) -> Any:
        yield loop.on_session(wanted=True)

    _run(central, site, story)
    assert len(central.received) == 3


def test_central_s_refusal_is_kept_and_our_own_trouble_is_not_a_refusal() -> None:
    central, site = Central("its runtime has the Task SDK 1.2", "broken"), Site()
    site.now = Runtime(task_sdk="1.2")
    refused = []

    def story(loop: RuntimeLoop) -> Any:
        loop.on_change = lambda: refused.append(loop.refused)
        yield loop.on_session(wanted=True)
        site.now = Runtime(task_sdk="1.2", trouble="broken")
        yield loop.note_change()

    _run(central, site, story)
    assert refused == ["its runtime has the Task SDK 1.2", ""]


def test_a_refusal_ends_with_a_central_that_does_not_check_runtimes() -> None:
    central, site = Central("its runtime has the Task SDK 1.2"), Site()
    site.now = Runtime(task_sdk="1.2")

    def story(loop: RuntimeLoop) -> Any:
        yield loop.on_session(wanted=True)
        assert loop.refused
        yield loop.on_session(wanted=False)

    assert _run(central, site, story).refused == ""
