"""History: points are stored in rows, folded into coarser levels, and deleted."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from sqlalchemy import Engine, func, select

from testkit.ledger import record_statements, enlist  # isort: skip

from airflow_remote_provider import compat
from airflow_remote_provider.ledger import history
from airflow_remote_provider.ledger.history import HOURS, LEVELS, MINUTES, QUARTERS, Level, Points, Series, SeriesKind
from airflow_remote_provider.models import History

pytestmark = pytest.mark.usefixtures("database")

NOON = datetime(2026, 3, 1, 12, tzinfo=timezone.utc)
FLEET = Series(SeriesKind.FLEET, "", "")


def _queue(name: str = "q", team: str = "") -> Series:
    return Series(SeriesKind.QUEUE, name, team)


def _add(level: Level, at: datetime, **values: tuple[float | None, ...]) -> None:
    with compat.transaction() as session:
        found = {FLEET if name == "fleet" else _queue(name): some for name, some in values.items()}
        history.add(session, level, number=level.number(at), values=found)


def _read(
    level: Level, kind: SeriesKind = SeriesKind.QUEUE, *, since: datetime = NOON - timedelta(days=400)
) -> dict[Series, Points]:
    with compat.transaction() as session:
        return history.read(session, level, kind, since=level.number(since))


def _fold(fine: Level, coarse: Level, at: datetime) -> None:
    with compat.transaction() as session:
        history.fold(session, fine=fine, coarse=coarse, now=at)


def _rows() -> int:
    with compat.transaction() as session:
        return session.scalar(select(func.count()).select_from(History)) or 0


def test_points_share_a_row_and_are_read_in_order() -> None:
    for minute in range(5):
        _add(MINUTES, NOON + timedelta(minutes=minute), q=(minute, 0, 1.5, 0, None))
    first = MINUTES.number(NOON)
    assert _read(MINUTES) == {_queue(): {first + n: (n, 0, 1.5, 0, None) for n in range(5)}}
    assert _rows() == 1


def test_a_point_of_the_same_minute_is_replaced() -> None:
    for depth in (1, 7):
        _add(MINUTES, NOON, q=(depth, 0, 0, 0, None))
    assert [values[0] for values in _read(MINUTES)[_queue()].values()] == [7]


def test_a_minute_of_many_queues_is_a_few_statements(database: Engine) -> None:
    names = [f"q{number}" for number in range(history.BATCH + 1)]
    for minute in range(2):
        with record_statements(database) as statements:
            _add(MINUTES, NOON + timedelta(minutes=minute), **{name: (0, 0, 0, 0, None) for name in names})
        assert len(statements) == 6
    assert {len(points) for points in _read(MINUTES).values()} == {2} and _rows() == len(names)


def test_ended_periods_are_folded_once_by_the_rule_of_each_value() -> None:
    for minute, depth in enumerate([2, 9, 4]):
        _add(MINUTES, NOON + timedelta(minutes=minute), fleet=(3, 0, 8, minute), q=(depth, depth, 60, 1, None))
    _fold(MINUTES, QUARTERS, NOON + timedelta(minutes=14))
    assert _read(QUARTERS) == {}, "the quarter has not ended yet"
    for _ in range(2):
        _fold(MINUTES, QUARTERS, NOON + timedelta(minutes=15))
    number = QUARTERS.number(NOON)
    assert _read(QUARTERS) == {_queue(): {number: (9, 5, 60, 1, None)}}
    assert _read(QUARTERS, SeriesKind.FLEET) == {FLEET: {number: (3, 0, 8, 1)}}


def test_periods_without_a_running_process_are_folded_later() -> None:
    for minute in (0, 20, 40):
        _add(MINUTES, NOON + timedelta(minutes=minute), fleet=(1, 0, 0, 0), q=(minute, 0, 0, 0, None))
    _fold(MINUTES, QUARTERS, NOON + timedelta(hours=2))
    assert [values[0] for values in _read(QUARTERS)[_queue()].values()] == [0, 20, 40]
    _fold(QUARTERS, HOURS, NOON + timedelta(hours=2))
    assert [values[0] for values in _read(HOURS)[_queue()].values()] == [40]


def test_points_from_before_the_clock_was_set_back_block_nothing() -> None:
    _add(QUARTERS, NOON + timedelta(days=30), fleet=(1, 0, 0, 0))
    _add(MINUTES, NOON, fleet=(1, 0, 0, 0), q=(5, 0, 0, 0, None))
    _fold(MINUTES, QUARTERS, NOON + timedelta(minutes=15))
    assert [values[0] for values in _read(QUARTERS)[_queue()].values()] == [5]


def test_workers_quarters_are_measured_and_only_folded_into_hours() -> None:
    worker = Series(SeriesKind.WORKER, "id", "")
    with compat.transaction() as session:
        for nth, online in enumerate([1.0, 0.5]):
            history.add(
                session, QUARTERS, number=QUARTERS.number(NOON) + nth, values={worker: (online, 2, 4), FLEET: (1, 0, 4, 2)}
            )
        history.add(session, MINUTES, number=MINUTES.number(NOON), values={worker: (0, 0, 0)})
    _fold(MINUTES, QUARTERS, NOON + timedelta(hours=2))
    _fold(QUARTERS, HOURS, NOON + timedelta(hours=2))
    assert list(_read(HOURS, SeriesKind.WORKER)[worker].values()) == [(0.75, 2, 4)]


@pytest.mark.parametrize("level", LEVELS, ids=lambda level: str(level.span))
def test_points_are_kept_as_long_as_their_level_says(level: Level) -> None:
    for age in (level.kept - level.span, level.kept + 2 * level.points * level.span):
        _add(level, NOON - age, q=(1, 0, 0, 0, None))
    with compat.transaction() as session:
        assert history.purge(session, NOON) == 1
    assert len(_read(level)[_queue()]) == 1


def test_points_of_deleted_workers_are_deleted() -> None:
    there = enlist()
    with compat.transaction() as session:
        some = {Series(SeriesKind.WORKER, name, ""): (1, 0, 4) for name in (there.id, "gone")}
        history.add(session, QUARTERS, number=QUARTERS.number(NOON), values=some)
        history.purge(session, NOON)
    assert [series.name for series in _read(QUARTERS, SeriesKind.WORKER)] == [there.id]


def test_teams_are_summed_but_ages_are_not() -> None:
    red, blue = {1: (1, 1, 30, 1, 2.0)}, {1: (2, 0, 60, 0, None), 2: (1, 0, 0, 0, None)}
    assert history.summed(SeriesKind.QUEUE, [red, blue]) == {1: (3, 1, 60, 1, 2), 2: (1, 0, 0, 0, None)}
