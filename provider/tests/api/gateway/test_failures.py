"""Jobs whose calls make the Execution API fail are sent away, for longer each time; others are not concerned."""

from __future__ import annotations

import pytest
from airflow_remote_protocol.errors import ProblemCode
from airflow_remote_provider.api.gateway.failures import AT_ONCE, FORGOTTEN_S, FREE, LONGEST_S, MOST_KEPT, Failures, ServerFailed
from airflow_remote_provider.api.problems import Refusal


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def _fail(failures: Failures, job: str = "j") -> None:
    with pytest.raises(ServerFailed), failures.call(job):
        raise ServerFailed


def _sent_away_for(failures: Failures, job: str = "j") -> float:
    with pytest.raises(Refusal) as refused, failures.call(job):
        raise AssertionError("it was passed on")
    assert refused.value.code is ProblemCode.BUSY
    assert refused.value.retry_after_s is not None
    return refused.value.retry_after_s


def test_after_some_failures_the_wait_grows_to_a_ceiling() -> None:
    clock = Clock()
    failures = Failures(clock)
    for _ in range(FREE):
        _fail(failures)
    waits = []
    for _ in range(8):
        _fail(failures)
        waits.append(_sent_away_for(failures))
        clock.now += waits[-1]
    assert waits == [2, 4, 8, 16, 32, LONGEST_S, LONGEST_S, LONGEST_S]
    with failures.call("another job"):
        pass


def test_an_answer_that_says_so_counts_like_an_exception() -> None:
    failures = Failures(Clock())
    for _ in range(FREE + 1):
        with failures.call("j") as failed:
            failed()
    _sent_away_for(failures)


def test_what_is_long_ago_is_forgotten() -> None:
    clock = Clock()
    failures = Failures(clock)
    for _ in range(FREE + 1):
        _fail(failures)
    clock.now += FORGOTTEN_S
    for _ in range(FREE):
        _fail(failures)


def test_a_burst_of_calls_is_bounded_before_the_first_has_failed() -> None:
    failures = Failures(Clock())
    calls = [failures.call("j") for _ in range(AT_ONCE)]
    for call in calls:
        call.__enter__()
    assert _sent_away_for(failures) == 1.0
    for call in calls:
        call.__exit__(None, None, None)
    with failures.call("j"):
        pass
    assert failures._jobs == {}, "what went well is not remembered"


def test_no_number_of_jobs_takes_memory_without_end() -> None:
    failures = Failures(Clock())
    for number in range(MOST_KEPT + 10):
        _fail(failures, str(number))
    assert len(failures._jobs) == MOST_KEPT
