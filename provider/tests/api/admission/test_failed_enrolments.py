"""A source with too many failed enrolments is refused for the rest of the minute; others are not affected."""

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


def _fail(failed_enrolments: FailedEnrolments, source: str, times: int) -> None:
    for _ in range(times):
        failed_enrolments.check_attempts(source)
        failed_enrolments.note_failure(source)


def test_a_source_with_too_many_failures_is_refused_until_the_minute_ends() -> None:
    clock = Clock()
    failed_enrolments = FailedEnrolments(3, clock)
    _fail(failed_enrolments, "10.0.0.7", 3)
    clock.now += 20
    with pytest.raises(Refusal) as refused:
        failed_enrolments.check_attempts("10.0.0.7")
    assert (refused.value.code, refused.value.retry_after_s) == (ProblemCode.BUSY, 40.0)
    failed_enrolments.check_attempts("10.0.0.8")
    clock.now += 40
    failed_enrolments.check_attempts("10.0.0.7")


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
def test_addresses_of_one_sender_share_one_count(first: str, second: str, is_one: bool) -> None:
    failed_enrolments = FailedEnrolments(1, Clock())
    _fail(failed_enrolments, first, 1)
    if is_one:
        with pytest.raises(Refusal):
            failed_enrolments.check_attempts(second)
    else:
        failed_enrolments.check_attempts(second)


def test_sources_beyond_the_limit_share_one_count() -> None:
    failed_enrolments = FailedEnrolments(5, Clock())
    for number in range(SOURCES + 5):
        _fail(failed_enrolments, f"10.1.{number // 256}.{number % 256}", 1)
    with pytest.raises(Refusal):
        failed_enrolments.check_attempts("10.9.9.9")
    assert len(failed_enrolments._failed) <= SOURCES + 1
    failed_enrolments.check_attempts("10.1.0.0")
