"""Jobs whose calls make the Execution API fail get `busy`, for longer each time; others are not affected."""

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


def _busy_s(failures: Failures, job: str = "j") -> float:
    with pytest.raises(Refusal) as refused, failures.call(job):
        raise AssertionError("it was passed on")
    assert refused.value.code is ProblemCode.BUSY
    assert refused.value.retry_after_s is not None
    return refused.value.retry_after_s


def test_the_wait_grows_with_each_failure_up_to_a_limit() -> None:
    clock = Clock()
    failures = Failures(clock)
    for _ in range(FREE):
        _fail(failures)
    waits = []
    for _ in range(8):
        _fail(failures)
        waits.append(_busy_s(failures))
        clock.now += waits[-1]
    assert waits == [2, 4, 8, 16, 32, LONGEST_S, LONGEST_S, LONGEST_S]
    with failures.call("another job"):
        pass


def test_a_failure_answer_counts_like_an_exception() -> None:
    failures = Failures(Clock())
    for _ in range(FREE + 1):
        with failures.call("j") as failed:
            failed()
    _busy_s(failures)


def test_old_failures_are_forgotten() -> None:
    clock = Clock()
    failures = Failures(clock)
    for _ in range(FREE + 1):
        _fail(failures)
    clock.now += FORGOTTEN_S
    for _ in range(FREE):
        _fail(failures)


def test_a_burst_of_calls_is_limited_before_the_first_failure() -> None:
    failures = Failures(Clock())
    calls = [failures.call("j") for _ in range(AT_ONCE)]
    for call in calls:
        call.__enter__()
    assert _busy_s(failures) == 1.0
    for call in calls:
        call.__exit__(None, None, None)
    with failures.call("j"):
        pass
    assert failures._jobs == {}, "successful calls are not remembered"


def test_the_remembered_jobs_are_limited() -> None:
    failures = Failures(Clock())
    for number in range(MOST_KEPT + 10):
        _fail(failures, str(number))
    assert len(failures._jobs) == MOST_KEPT
