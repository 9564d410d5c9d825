"""History: small time series of the fleet, of queues and of workers, in three levels; coarser levels are kept for longer.

A row holds many points, so that there are few rows: at most about fifty for each series. :mod:`..api.duties.recorder` decides
what is measured, and when.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from itertools import groupby, islice
from typing import Any

from sqlalchemy import and_, delete, insert, or_, select
from sqlalchemy.orm import Session

from airflow_remote_provider.models import History, Worker

MOST_QUEUES = 500
"""Most series of queues: users choose the names of queues, and there is no limit to them. Later queues get no series."""
BATCH = 500
"""Rows of one statement."""


@dataclass(frozen=True)
class Level:
    """One resolution."""

    span: timedelta
    """The period that a point covers."""
    points: int
    """Per row."""
    kept: timedelta

    @property
    def span_s(self) -> int:
        return int(self.span.total_seconds())

    def number(self, at: datetime) -> int:
        """Return the number of the point that *at* belongs to."""
        return int(at.timestamp() // self.span_s)

    def first(self, number: int) -> int:
        """Return the number of the first point in the row of this point."""
        return number - number % self.points


MINUTES = Level(timedelta(minutes=1), points=120, kept=timedelta(hours=24))
QUARTERS = Level(timedelta(minutes=15), points=96, kept=timedelta(days=14))
HOURS = Level(timedelta(hours=2), points=120, kept=timedelta(days=366))
LEVELS = (MINUTES, QUARTERS, HOURS)

Value = int | float | None
Fold = Callable[[Sequence[float]], float]


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


@dataclass(frozen=True)
class Field:
    """One value of a point."""

    name: str
    over_time: Fold
    """Merges several points into one."""
    over_teams: Fold = sum
    """Merges the values of several teams."""


class SeriesKind(str, Enum):
    FLEET = "fleet"
    QUEUE = "queue"
    WORKER = "worker"


FIELDS: Mapping[SeriesKind, tuple[Field, ...]] = {
    SeriesKind.FLEET: (Field("online", mean), Field("silent", max), Field("slots", mean), Field("used_slots", mean)),
    SeriesKind.QUEUE: (
        Field("queued", max),
        Field("running", mean),
        Field("oldest_s", max, over_teams=max),
        Field("free_slots", mean),
        Field("wait_p95_s", max, over_teams=max),
    ),
    SeriesKind.WORKER: (Field("online", mean), Field("used_slots", mean), Field("slots", max)),
}
"""The values of each kind's points, in order. A worker's *online* is a share of the time, 0 to 1."""


@dataclass(frozen=True, order=True)
class Series:
    """One time series: of a queue, a worker, or the whole fleet, for one team (empty: no team)."""

    kind: SeriesKind
    name: str
    team: str


Points = dict[int, tuple[Value, ...]]
"""Values by the number of their point."""


def add(session: Session, level: Level, *, number: int, values: Mapping[Series, Sequence[Value]]) -> None:
    """Add one point to each of these series."""
    put(session, level, {series: {number: tuple(some)} for series, some in values.items()})


def put(session: Session, level: Level, found: Mapping[Series, Points]) -> None:
    """Add points to these series; existing points are replaced. Three statements for each :data:`BATCH` of rows."""
    rows: dict[tuple[Series, int], Points] = {}
    for series, points in found.items():
        for number, values in points.items():
            rows.setdefault((series, level.first(number)), {})[number] = values
    keys = iter(sorted(rows))
    while batch := list(islice(keys, BATCH)):
        _replace(session, level, {key: rows[key] for key in batch})


def _replace(session: Session, level: Level, rows: Mapping[tuple[Series, int], Points]) -> None:
    by_kind: dict[tuple[SeriesKind, str, int], list[str]] = {}
    for series, first in rows:
        by_kind.setdefault((series.kind, series.team, first), []).append(series.name)
    ours = or_(
        *(
            and_(History.kind == kind.value, History.team == team, History.first == first, History.name.in_(names))
            for (kind, team, first), names in by_kind.items()
        )
    )
    which = and_(History.span_s == level.span_s, ours)
    merged = {key: dict(points) for key, points in rows.items()}
    for row in session.execute(select(History.kind, History.name, History.team, History.first, History.points).where(which)):
        key = (Series(SeriesKind(row.kind), row.name, row.team), row.first)
        merged[key] = {**_points(row.first, row.points), **merged[key]}
    session.execute(delete(History).where(which).execution_options(synchronize_session=False))
    session.execute(
        insert(History).values(
            [
                {
                    "kind": series.kind.value,
                    "name": series.name,
                    "team": series.team,
                    "span_s": level.span_s,
                    "first": first,
                    "points": _text(first, points),
                }
                for (series, first), points in merged.items()
            ]
        )
    )


def fold(session: Session, *, fine: Level, coarse: Level, now: datetime) -> None:
    """Make points of *coarse* from those of *fine*, for every period that has ended and has no point yet."""
    until = coarse.number(now)
    since = _folded_until(session, coarse, until)
    begin = max(since * coarse.span_s, int((now - fine.kept).timestamp())) // fine.span_s
    if since >= until:
        return
    query = select(History.kind, History.name, History.team, History.first, History.points).where(
        History.span_s == fine.span_s, History.first > begin - fine.points
    )
    if coarse.span_s == QUARTERS.span_s:
        query = query.where(History.kind != SeriesKind.WORKER.value)  # the recorder measures their quarters itself
    ratio = coarse.span_s // fine.span_s
    found: dict[Series, Points] = {}
    rows = session.execute(query.order_by(History.kind, History.name, History.team))
    for key, some in groupby(rows, key=lambda row: Series(SeriesKind(row.kind), row.name, row.team)):
        points: Points = {}
        for row in some:
            points |= _points(row.first, row.points)
        coarser = folded(key.kind, points, ratio)
        found[key] = {number: values for number, values in coarser.items() if since <= number < until}
    put(session, coarse, found)


def _folded_until(session: Session, level: Level, until: int) -> int:
    """Return the first number before *until* for which the fleet has no point yet."""
    query = select(History.first, History.points).where(
        History.kind == SeriesKind.FLEET.value, History.span_s == level.span_s, History.first < until
    )
    numbers = [
        number
        for row in session.execute(query.order_by(History.first.desc()).limit(2))
        for number in _points(row.first, row.points)
        if number < until
    ]
    return max(numbers, default=-1) + 1


def folded(kind: SeriesKind, points: Points, size: int) -> Points:
    """Return the points with each *size* consecutive ones merged into one."""
    groups: dict[int, list[tuple[Value, ...]]] = {}
    for number, values in points.items():
        groups.setdefault(number // size, []).append(values)
    return {number: _as_one(some, [field.over_time for field in FIELDS[kind]]) for number, some in groups.items()}


def summed(kind: SeriesKind, teams: Iterable[Points]) -> Points:
    """Return the points of several teams' series as one."""
    by_number: dict[int, list[tuple[Value, ...]]] = {}
    for points in teams:
        for number, values in points.items():
            by_number.setdefault(number, []).append(values)
    return {number: _as_one(some, [field.over_teams for field in FIELDS[kind]]) for number, some in by_number.items()}


def _as_one(points: Sequence[tuple[Value, ...]], how: Sequence[Fold]) -> tuple[Value, ...]:
    columns = ([value for value in column if value is not None] for column in zip(*points, strict=True))
    return tuple(rounded(fold(values)) if values else None for fold, values in zip(how, columns, strict=True))


def rounded(value: float) -> float:
    """Return a value rounded as it is stored; whole numbers become integers, which are shorter."""
    near = round(value, 3)
    return int(near) if near == int(near) else near


def read(
    session: Session, level: Level, kind: SeriesKind, *, since: int, names: Sequence[str] | None = None
) -> dict[Series, Points]:
    """Return the points from *since* on, of all series or of those in *names*. One statement."""
    query = select(History.name, History.team, History.first, History.points).where(
        History.kind == kind.value, History.span_s == level.span_s, History.first > since - level.points
    )
    if names is not None:
        query = query.where(History.name.in_(names))
    found: dict[Series, Points] = {}
    for row in session.execute(query.order_by(History.first)):
        points = found.setdefault(Series(kind, row.name, row.team), {})
        points |= {number: values for number, values in _points(row.first, row.points).items() if number >= since}
    return found


def known_queues(session: Session, now: datetime) -> set[str]:
    """Return the queues that have points in the last day."""
    query = select(History.name).where(
        History.kind == SeriesKind.QUEUE.value,
        History.span_s == MINUTES.span_s,
        History.first > MINUTES.number(now - MINUTES.kept) - MINUTES.points,
    )
    return set(session.scalars(query.distinct()))


def purge(session: Session, now: datetime) -> int:
    """Delete points older than their level keeps, and points of workers that no longer exist. Return how many rows."""
    gone = 0
    old = [
        and_(History.span_s == level.span_s, History.first < level.number(now - level.kept) - level.points) for level in LEVELS
    ]
    unknown_workers = and_(History.kind == SeriesKind.WORKER.value, History.name.not_in(select(Worker.id)))
    for which in (or_(*old), unknown_workers):
        deleted: Any = session.execute(delete(History).where(which).execution_options(synchronize_session=False))
        gone += deleted.rowcount
    return gone


def _points(first: int, text: str) -> Points:
    return {first + offset: tuple(values) for offset, *values in json.loads(text)}


def _text(first: int, points: Points) -> str:
    return json.dumps([[number - first, *values] for number, values in sorted(points.items())], separators=(",", ":"))
