"""The end of a trigger is reported until central acknowledges it, but not for ever."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import anyio
import pytest
from airflow_remote_protocol.errors import ProblemCode, make_problem
from airflow_remote_protocol.messages import Decline, EventKind, Outcome, Report, TriggerEvent
from airflow_remote_worker.errors import Refused, Superseded, Unreachable
from airflow_remote_worker.lease import Lease
from airflow_remote_worker.loops.end_triggers import AT_ONCE, EndTriggersLoop
from airflow_remote_worker.triggers.log import PendingLog
from airflow_remote_worker.triggers.spool import TriggerDir
from airflow_remote_worker.triggers.trigger import Ending, Stage, Trigger

from ..conftest import HandClock

EVENT = TriggerEvent(kind=EventKind.FIRED)
INVALID = Refused("too large", problem=make_problem(ProblemCode.TOO_LARGE, "too large"))


class StubLink:
    """Gives its answers in turn, then succeeds."""

    def __init__(self) -> None:
        self.errors: list[Exception] = []
        self.said: list[tuple[str, object]] = []
        self.open = self.most_open = 0

    async def event(self, lease: Lease, event: TriggerEvent) -> None:
        await self._say("event", event)

    async def decline(self, lease: Lease, reason: str) -> None:
        await self._say("decline", reason)

    async def report(self, lease: Lease, report: Report) -> None:
        await self._say("report", report.outcome)

    async def wait_for_contact(self, seconds: float) -> None:
        await anyio.sleep(0)

    async def _say(self, what: str, content: object) -> None:
        self.said.append((what, content))
        self.open += 1
        self.most_open = max(self.open, self.most_open)
        await anyio.sleep(0.01)
        self.open -= 1
        if self.errors:
            raise self.errors.pop(0)


@pytest.fixture
def link() -> StubLink:
    return StubLink()


@pytest.fixture
def report_ends(link: StubLink, clock: HandClock, tmp_path: Path) -> Callable[..., list[Trigger]]:
    """Report these endings; return the triggers in the order in which central acknowledged them."""

    def make(ending: Ending | None, n: int) -> Trigger:
        lease = Lease(f"job-{n}", 1)
        trigger = Trigger(lease, TriggerDir(tmp_path, lease), PendingLog(tmp_path), "q", 1.0, Stage.ENDED)
        trigger.ending = ending
        return trigger

    def report_ends(*endings: Ending | None) -> list[Trigger]:
        acknowledged: list[Trigger] = []

        async def main() -> None:
            loop = EndTriggersLoop(link, clock, acknowledged.append)  # type: ignore[arg-type]
            async with anyio.create_task_group() as tasks:
                await tasks.start(loop.run)
                for n, ending in enumerate(endings):
                    loop.report_end(make(ending, n))
                with anyio.fail_after(60):
                    while len(acknowledged) < len(endings):
                        await anyio.sleep(0.01)
                tasks.cancel_scope.cancel()

        anyio.run(main)
        return acknowledged

    return report_ends


def test_each_kind_of_ending_has_its_route(report_ends: Callable[..., list[Trigger]], link: StubLink) -> None:
    report_ends(EVENT, Decline(reason="draining"), Report(outcome=Outcome.UNPREPARED))
    assert sorted(what for what, _ in link.said) == ["decline", "event", "report"]


def test_an_ending_is_reported_again_until_central_answers(report_ends: Callable[..., list[Trigger]], link: StubLink) -> None:
    link.errors = [Unreachable("away")] * 3
    report_ends(EVENT)
    assert link.said == [("event", EVENT)] * 4


def test_an_ending_that_central_does_not_need_is_dropped(report_ends: Callable[..., list[Trigger]], link: StubLink) -> None:
    link.errors = [Superseded("gone")]
    report_ends(EVENT)
    assert len(link.said) == 1


def test_an_event_that_central_refuses_becomes_a_failure(report_ends: Callable[..., list[Trigger]], link: StubLink) -> None:
    link.errors = [INVALID]
    report_ends(EVENT)
    _, second = link.said[1]
    assert isinstance(second, TriggerEvent)
    assert second.kind is EventKind.FAILED
    assert "too large" in second.traceback[0]


def test_a_failure_that_central_refuses_too_is_given_up(report_ends: Callable[..., list[Trigger]], link: StubLink) -> None:
    link.errors = [INVALID, INVALID]
    report_ends(EVENT)
    assert len(link.said) == 2


def test_a_superseded_ending_is_not_sent(report_ends: Callable[..., list[Trigger]], link: StubLink) -> None:
    report_ends(None)
    assert not link.said


def test_few_endings_are_sent_at_once_and_the_oldest_first(report_ends: Callable[..., list[Trigger]], link: StubLink) -> None:
    acknowledged = report_ends(*[EVENT] * 50)
    assert link.most_open == AT_ONCE
    assert {trigger.lease.job_id for trigger in acknowledged[:AT_ONCE]} == {f"job-{n}" for n in range(AT_ONCE)}
