"""The rate limits of a single worker in one API process."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from testkit.central import ServedCentral  # isort: skip
from testkit.ledger import use_ledger, make_engine  # isort: skip

from airflow_remote_protocol.conformance.caller import Caller
from airflow_remote_protocol.conformance.expect import expect_refusal
from airflow_remote_protocol.errors import ProblemCode
from airflow_remote_provider.api.admission import rate_limits
from airflow_remote_provider.api.admission.rate_limits import AT_ONCE, BURST_S, RateLimits
from airflow_remote_provider.api.problems import Refusal
from airflow_remote_provider.settings import settings


class Clock:
    """The event loop's time, set by the test."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(rate_limits.asyncio, "get_running_loop", lambda: self)

    def time(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def _busy(work: Callable[[], object]) -> None:
    with pytest.raises(Refusal) as busy:
        work()
    assert busy.value.code is ProblemCode.BUSY


def test_only_a_worker_above_the_rate_limit_is_refused(clock: Clock) -> None:
    some = RateLimits(5)
    for _ in range(int(5 * BURST_S)):
        some.take("wild")
    _busy(lambda: some.take("wild"))
    some.take("quiet")
    clock.now += 1
    for _ in range(5):
        some.take("wild")
    _busy(lambda: some.take("wild"))


def test_a_steady_worker_at_the_limit_never_waits(clock: Clock) -> None:
    some = RateLimits(5)
    for _ in range(1000):
        some.take("steady")
        clock.now += 0.2


def test_a_limit_of_zero_means_no_limit(clock: Clock) -> None:
    some = RateLimits(0)
    for _ in range(100_000):
        some.take("w")


def test_only_workers_without_recent_calls_are_forgotten(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_limits, "MOST_KEPT", 3)
    some = RateLimits(5)
    some.take("once")
    for _ in range(50):
        some.take("wild")
    clock.now += 1
    for name in "abc":
        some.take(name)
    assert "once" not in some._spent
    for _ in range(5):
        some.take("wild")
    _busy(lambda: some.take("wild"))


def test_calls_under_way_are_limited_and_places_given_back() -> None:
    some = RateLimits(0)
    with ExitStack() as stack:
        for _ in range(AT_ONCE):
            stack.enter_context(some.place("wild"))
        _busy(lambda: stack.enter_context(some.place("wild")))
        with some.place("other"):
            pass
    assert some._under_way == {}
    with pytest.raises(ZeroDivisionError), some.place("w"):
        raise ZeroDivisionError
    assert some._under_way == {}


def test_a_worker_above_the_rate_limit_gets_busy_and_another_is_answered(
    new_database: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__REMOTE__CALLS_PER_SECOND", "3")
    settings.cache_clear()
    engine = make_engine(new_database("sqlite"))
    try:
        with use_ledger(engine, tmp_path), ServedCentral() as central:
            wild, other = Caller.connect(central), Caller.connect(central)
            answers = [wild.call("GET", "ping") for _ in range(60)]
            assert answers[0].status == 200
            expect_refusal(answers[-1], ProblemCode.BUSY)
            assert int(answers[-1].headers["retry-after"]) > 0
            assert other.call("GET", "ping").status == 200
    finally:
        settings.cache_clear()
        engine.dispose()
