"""The values that are recorded each minute, and the history that users see."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from testkit.ledger import ago, enlist, set_last_seen, queued, running  # isort: skip

from airflow_remote_provider import compat
from airflow_remote_provider.api.duties import recorder
from airflow_remote_provider.api.duties.recorder import Recorder
from airflow_remote_provider.ledger import history
from airflow_remote_provider.ledger.history import SeriesKind
from airflow_remote_provider.ledger.views import history as view
from airflow_remote_provider.ledger.views.history import HistoryRow, list_history
from airflow_remote_provider.ledger.views.scope import EVERYTHING, Scope

pytestmark = pytest.mark.usefixtures("database")

NOON = datetime(2026, 3, 1, 12, tzinfo=timezone.utc)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[datetime]:
    """The time of records and reads. The ledger's own clock is not changed."""
    now = [NOON]
    for module in (recorder, view):
        monkeypatch.setattr(module, "database_now", lambda session: now[0])
    return now


def _recorder() -> Recorder:
    return Recorder(silent_after=timedelta(seconds=90))


def _record(by: Recorder) -> None:
    with compat.transaction() as session:
        by.record(session)


def _shown(kind: SeriesKind, *names: str, scope: Scope = EVERYTHING, **wanted: object) -> dict[str, HistoryRow]:
    with compat.transaction() as session:
        rows = list_history(session, kind, last=timedelta(hours=1), names=names, scope=scope, **wanted)  # type: ignore[arg-type]
    return {row.name: row for row in rows}


def test_a_minute_records_the_fleet_and_each_queue(clock: list[datetime]) -> None:
    worker = enlist(slots=5)
    running(worker, slots=2)
    set_last_seen(enlist("away", ["z"]).id, ago(minutes=5))
    queued("z")
    _record(_recorder())
    fleet = _shown(SeriesKind.FLEET)[""]
    assert (fleet.at, fleet.span_s) == ([NOON.timestamp()], 60)
    assert fleet.values == {"online": [1], "silent": [1], "slots": [5], "used_slots": [2]}
    queues = _shown(SeriesKind.QUEUE)
    assert (queues["q"].values["running"], queues["q"].values["free_slots"]) == ([1], [3])
    assert (queues["z"].values["queued"], queues["z"].values["wait_p95_s"]) == ([1], [None])
    assert list(_shown(SeriesKind.QUEUE, "z")) == ["z"]


def test_a_worker_s_quarter_is_stored_when_it_is_over(clock: list[datetime]) -> None:
    worker, by = enlist("edge", slots=4), _recorder()
    _record(by)
    set_last_seen(worker.id, ago(minutes=5))
    clock[0] += timedelta(minutes=7)
    _record(by)
    assert _shown(SeriesKind.WORKER, "edge") == {}
    clock[0] += timedelta(minutes=8)
    _record(by)
    assert _shown(SeriesKind.WORKER, "edge")["edge"].values == {"online": [0.5], "used_slots": [0], "slots": [4]}


def test_a_process_that_lost_the_duty_discards_its_values(clock: list[datetime]) -> None:
    enlist("edge")
    by = _recorder()
    _record(by)
    by.forget()
    clock[0] += timedelta(minutes=15)
    _record(by)
    assert _shown(SeriesKind.WORKER, "edge") == {}


def test_queues_beyond_the_limit_get_no_history_and_existing_ones_continue(
    clock: list[datetime], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "MOST_QUEUES", 2)
    queued("a")
    _record(_recorder())
    for name in ("b", "b", "c"):
        queued(name)
    clock[0] += timedelta(minutes=1)
    _record(_recorder())
    assert {name: len(row.at) for name, row in _shown(SeriesKind.QUEUE).items()} == {"a": 2, "b": 1}


def test_points_are_aggregated_to_the_requested_number(clock: list[datetime]) -> None:
    by = _recorder()
    for minute in range(60):
        clock[0] = NOON + timedelta(minutes=minute)
        if minute == 30:
            queued("q")
        _record(by)
    row = _shown(SeriesKind.QUEUE, most_points=7)["q"]
    assert row.span_s == 9 * 60 and set(row.values["queued"]) == {1} and len(row.at) <= 7
    assert len(_shown(SeriesKind.FLEET, most_points=7)[""].at) <= 7


def test_the_history_of_other_teams_is_not_shown(clock: list[datetime]) -> None:
    enlist("red", ["q"], team="red")
    queued("q", team="red")
    queued("q")
    queued("secret", team="red")
    by = _recorder()
    _record(by)
    clock[0] += timedelta(minutes=15)
    _record(by)
    blue, red = Scope(teams={"blue"}), Scope(teams={"red"})
    assert {name: row.values["queued"][0] for name, row in _shown(SeriesKind.QUEUE, scope=blue).items()} == {"q": 1}
    assert {name: row.values["queued"][0] for name, row in _shown(SeriesKind.QUEUE, scope=red).items()} == {"q": 2, "secret": 1}
    assert (_shown(SeriesKind.WORKER, "red", scope=blue), len(_shown(SeriesKind.WORKER, "red", scope=red))) == ({}, 1)
    assert (
        _shown(SeriesKind.FLEET, scope=blue)[""].values["online"][0],
        _shown(SeriesKind.FLEET, scope=red)[""].values["online"][0],
    ) == (
        0,
        1,
    )
