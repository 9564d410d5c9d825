"""How often workers tell what they use."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from airflow_remote_protocol.conformance.caller import Caller
from airflow_remote_protocol.conformance.insist import refused, succeeded
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


def test_the_more_workers_tell_the_seldomer_each_does() -> None:
    pace = UsageInterval()
    assert pace.next_s("first", 0.0) == LEAST_S
    many = int(CALLS_PER_S * 60)
    for number in range(many):
        last = pace.next_s(str(number), 1.0)
    assert last == pytest.approx((many + 1) / CALLS_PER_S)
    assert pace.next_s("first", 2.0) == last, "one that comes back is not counted twice"


def test_who_has_nothing_to_tell_any_more_is_soon_not_counted() -> None:
    pace = UsageInterval()
    for number in range(1000):
        pace.next_s(str(number), 0.0)
    assert pace.next_s("late", 200.0) == 1001 / CALLS_PER_S
    assert pace.next_s("late", 210.0) == LEAST_S


def test_who_tells_without_pause_is_busy_and_others_are_not(central: ServedCentral) -> None:
    wild, other = Caller.at_work(central), Caller.at_work(central)
    answers = [wild.call("POST", "usage", Usage(MACHINE)) for _ in range(int(WORKER_CALLS_PER_S * BURST_S) * 2)]
    succeeded(answers[0], UsageNoted)
    refused(answers[-1], ProblemCode.BUSY)
    succeeded(other.call("POST", "usage", Usage(MACHINE)), UsageNoted)
