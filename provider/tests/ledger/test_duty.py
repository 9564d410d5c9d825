"""Duties, and whether there are open jobs."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest
from sqlalchemy import Engine, update

from testkit.ledger import (  # isort: skip
    ago,
    record_statements,
    enlist,
    running,
)

from airflow_remote_protocol.messages import Outcome, Report
from airflow_remote_provider import compat
from airflow_remote_provider.ledger import (
    duty,
    leases,
)
from airflow_remote_provider.models import Duty

pytestmark = pytest.mark.usefixtures("database")


def _do(verb: object, *args: object, **kwargs: object) -> object:
    with compat.transaction() as session:
        return verb(session, *args, **kwargs)  # type: ignore[operator]


def test_a_duty_has_one_holder_until_it_expires() -> None:
    lasts = timedelta(seconds=15)
    assert _do(duty.take_duty, "sweep", "one", lasts=lasts)
    assert not _do(duty.take_duty, "sweep", "two", lasts=lasts)
    assert _do(duty.take_duty, "sweep", "one", lasts=lasts), "its holder keeps it"
    assert _do(duty.take_duty, "other", "two", lasts=lasts), "another duty is independent"
    with compat.transaction() as session:
        session.execute(update(Duty).where(Duty.name == "sweep").values(until=ago(seconds=1)))
    assert _do(duty.take_duty, "sweep", "two", lasts=lasts)
    assert not _do(duty.take_duty, "sweep", "one", lasts=lasts)


@pytest.mark.parametrize("lapsed", [False, True], ids=["never had", "lapsed"])
def test_only_one_of_many_concurrent_callers_gets_a_duty(lapsed: bool) -> None:
    if lapsed:
        with compat.transaction() as session:
            session.add(Duty(name="sweep", holder="dead", until=ago(seconds=1)))
    start, taken = threading.Barrier(6), []

    def take(holder: str) -> None:
        start.wait(10)
        if _do(duty.take_duty, "sweep", holder, lasts=timedelta(seconds=15)):
            taken.append(holder)

    threads = [threading.Thread(target=take, args=(str(i),)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(taken) == 1


def test_a_duty_that_was_taken_before_the_clock_was_set_back_is_free() -> None:
    with compat.transaction() as session:
        session.add(Duty(name="sweep", holder="dead", until=ago(days=-1)))
    assert _do(duty.take_duty, "sweep", "alive", lasts=timedelta(seconds=15))


def test_open_jobs_are_detected() -> None:
    def is_any_open() -> bool:
        return _do(duty.check_open_jobs)[1]  # type: ignore[index, no-any-return]

    assert not is_any_open()
    lease = running(enlist())
    assert is_any_open()
    _do(leases.report, lease, Report(Outcome.SUCCEEDED))
    assert not is_any_open()


def test_one_statement_returns_the_clock_and_whether_jobs_are_open(database: Engine) -> None:
    with record_statements(database) as statements:
        now, is_open = _do(duty.check_open_jobs)  # type: ignore[misc]
    assert len(statements) == 1
    assert not is_open and abs(now - ago()) < timedelta(seconds=5)
    running(enlist())
    assert _do(duty.check_open_jobs)[1]  # type: ignore[index]
