"""The Remote Workers summary."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import Engine

from testkit.ledger import ago, record_statements, enlist, set_last_seen, queued, running  # isort: skip

from airflow_remote_provider import compat
from airflow_remote_provider.ledger.views.scope import EVERYTHING, Scope
from airflow_remote_provider.ledger.views.summary import MOST_NAMED, Summary, summarize

pytestmark = pytest.mark.usefixtures("database")


def _summary(scope: Scope = EVERYTHING) -> Summary:
    with compat.transaction() as session:
        return summarize(session, silent_after=timedelta(seconds=90), scope=scope)


def test_an_empty_ledger_counts_zero() -> None:
    assert _summary() == Summary(0, 0, 0, 0, 0, 0, [], 0)


def test_workers_and_jobs_are_counted_and_unserved_queues_named() -> None:
    there, away = enlist("there", ["a"]), enlist("away", ["b"])
    set_last_seen(away.id, ago(minutes=5))
    running(there, "a")
    queued("a")
    queued("b")
    queued("nobody")
    assert _summary() == Summary(2, 1, 1, 0, queued=3, running=1, unserved=["b", "nobody"], unserved_count=2)


def test_many_unserved_queues_are_counted_and_the_first_named() -> None:
    for number in range(MOST_NAMED + 3):
        queued(f"q{number}")
    summary = _summary()
    assert summary.unserved == [f"q{number}" for number in range(MOST_NAMED)] and summary.unserved_count == MOST_NAMED + 3


def test_other_teams_are_not_shown() -> None:
    enlist("red", ["a"], team="red")
    queued("a", team="red")
    queued("a", team="blue")
    assert _summary(Scope(teams=["blue"])) == Summary(0, 0, 0, 0, queued=1, running=0, unserved=["a"], unserved_count=1)
    assert _summary(Scope(teams=["red"])).unserved == []


def test_the_number_of_statements_does_not_depend_on_the_fleet(database: Engine) -> None:
    for number in range(20):
        enlist(f"w{number}", [f"q{number}"])
        queued(f"q{number}")
    with compat.transaction() as session, record_statements(database) as statements:
        summarize(session, silent_after=timedelta(seconds=90))
    assert len(statements) <= 5
