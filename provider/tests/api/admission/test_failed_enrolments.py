"""Whoever fails to join too often is not listened to for the rest of the minute; nobody else is touched."""

from __future__ import annotations

import pytest
from airflow_remote_protocol.errors import ProblemCode
from airflow_remote_provider.api.admission.failed_enrolments import SOURCES, FailedEnrolments
from airflow_remote_provider.api.problems import Refusal


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def _fail(guesses: FailedEnrolments, source: str, times: int) -> None:
    for _ in range(times):
        guesses.check_attempts(source)
        guesses.note_failure(source)


def test_after_too_many_the_source_waits_for_the_minute_to_end() -> None:
    clock = Clock()
    guesses = FailedEnrolments(3, clock)
    _fail(guesses, "10.0.0.7", 3)
    clock.now += 20
    with pytest.raises(Refusal) as refused:
        guesses.check_attempts("10.0.0.7")
    assert (refused.value.code, refused.value.retry_after_s) == (ProblemCode.BUSY, 40.0)
    guesses.check_attempts("10.0.0.8")
    clock.now += 40
    guesses.check_attempts("10.0.0.7")


@pytest.mark.parametrize(
    ("first", "second", "is_one"),
    [
        ("2001:db8::1", "2001:db8::ffff:2", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:10.0.0.7", "10.0.0.7", True),
        ("10.0.0.7", "10.0.0.8", False),
        ("", "testclient", True),
    ],
)
def test_what_one_sender_has_to_himself_counts_as_one(first: str, second: str, is_one: bool) -> None:
    guesses = FailedEnrolments(1, Clock())
    _fail(guesses, first, 1)
    if is_one:
        with pytest.raises(Refusal):
            guesses.check_attempts(second)
    else:
        guesses.check_attempts(second)


def test_many_sources_share_one_count_and_memory_has_a_bound() -> None:
    guesses = FailedEnrolments(5, Clock())
    for number in range(SOURCES + 5):
        _fail(guesses, f"10.1.{number // 256}.{number % 256}", 1)
    with pytest.raises(Refusal):
        guesses.check_attempts("10.9.9.9")
    assert len(guesses._failed) <= SOURCES + 1
    guesses.check_attempts("10.1.0.0")
