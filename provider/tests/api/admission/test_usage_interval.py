"""How often workers report their usage."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from airflow_remote_protocol.conformance.caller import Caller
from airflow_remote_protocol.conformance.expect import expect_message, expect_refusal
from airflow_remote_protocol.conformance.usages import MACHINE
from airflow_remote_protocol.errors import ProblemCode
from airflow_remote_protocol.messages import Usage, UsageNoted
from airflow_remote_provider.api.admission.rate_limits import BURST_S
from airflow_remote_provider.api.admission.usage_interval import CALLS_PER_S, LEAST_S, WORKER_CALLS_PER_S, UsageInterval
from sqlalchemy import Engine

from testkit.central import ServedCentral


@pytest.fixture
def central(database: Engine) -> Iterator[ServedCentral]:
    with ServedCentral() as served:
        yield served


def test_the_interval_grows_with_the_number_of_reporting_workers() -> None:
    pace = UsageInterval()
    assert pace.note_report("first", 0.0) == LEAST_S
    many = int(CALLS_PER_S * 60)
    for number in range(many):
        last = pace.note_report(str(number), 1.0)
    assert last == pytest.approx((many + 1) / CALLS_PER_S)
    assert pace.note_report("first", 2.0) == last, "a repeated report is not counted twice"


def test_a_worker_that_stops_reporting_is_soon_not_counted() -> None:
    pace = UsageInterval()
    for number in range(1000):
        pace.note_report(str(number), 0.0)
    assert pace.note_report("late", 200.0) == 1001 / CALLS_PER_S
    assert pace.note_report("late", 210.0) == LEAST_S


def test_a_worker_that_reports_without_pause_gets_busy_and_others_do_not(central: ServedCentral) -> None:
    wild, other = Caller.connect(central), Caller.connect(central)
    answers = [wild.call("POST", "usage", Usage(MACHINE)) for _ in range(int(WORKER_CALLS_PER_S * BURST_S) * 2)]
    expect_message(answers[0], UsageNoted)
    expect_refusal(answers[-1], ProblemCode.BUSY)
    expect_message(other.call("POST", "usage", Usage(MACHINE)), UsageNoted)
