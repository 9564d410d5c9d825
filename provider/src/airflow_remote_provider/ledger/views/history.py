"""History as users see it: the points of the last hours or days, within their scope."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from airflow_remote_provider.compat import database_now
from airflow_remote_provider.ledger import history
from airflow_remote_provider.ledger.history import FIELDS, LEVELS, MINUTES, Level, Points, SeriesKind, Value
from airflow_remote_provider.ledger.views.scope import EVERYTHING, Scope
from airflow_remote_provider.models import Worker

LONGEST = LEVELS[-1].kept
MOST_POINTS = 1500
MOST_NAMES = 100


@dataclass(frozen=True)
class HistoryRow:
    """One series: its values by name, each in the order of *at*. Where nothing was measured there is no point."""

    name: str
    """The queue's or worker's; empty for the fleet."""
    span_s: int
    """The period that a point covers, in seconds."""
    at: list[int]
    """When each point begins, in seconds since 1970."""
    values: dict[str, list[Value]]


def list_history(
    session: Session,
    kind: SeriesKind,
    *,
    last: timedelta,
    most_points: int = MOST_POINTS,
    names: Sequence[str] = (),
    scope: Scope = EVERYTHING,
) -> list[HistoryRow]:
    """Return the series of one kind, at the finest level that reaches back far enough, thinned to *most_points*.

    Returns only the workers in *names*; and the queues in *names*, or all queues if it is empty. Two or three statements.
    """
    now = database_now(session)
    level = _level(kind, last)
    shown = {name: name for name in names}
    if kind is SeriesKind.WORKER:
        query = select(Worker.id, Worker.name).where(
            Worker.name.in_(names), Worker.removed_at.is_(None), scope.sees_team(Worker.team)
        )
        shown = {row.id: row.name for row in session.execute(query)}
    wanted = None if kind is SeriesKind.FLEET or (kind is SeriesKind.QUEUE and not names) else list(shown)
    until = level.number(now)
    since = level.number(now - last)
    found = history.read(session, level, kind, since=since, names=wanted)
    by_name: dict[str, list[Points]] = {}
    for series, points in found.items():
        # A worker may have changed its team; a user who sees it now also sees its earlier points.
        if kind is SeriesKind.WORKER or scope.includes_team(series.team or None):
            by_name.setdefault(series.name, []).append(points)
    step = max(1, math.ceil((until - since + 1) / most_points))
    return [
        _row(kind, shown.get(name, name), level=level, points=history.summed(kind, parts), step=step, until=until)
        for name, parts in sorted(by_name.items())
    ]


def _level(kind: SeriesKind, last: timedelta) -> Level:
    """Return the finest level that reaches back far enough; minutes are not kept for workers."""
    return next(
        (level for level in LEVELS if last <= level.kept and not (kind is SeriesKind.WORKER and level is MINUTES)), LEVELS[-1]
    )


def _row(kind: SeriesKind, name: str, *, level: Level, points: Points, step: int, until: int) -> HistoryRow:
    points = {number: values for number, values in points.items() if number <= until}  # later ones: the clock was set back
    if step > 1:
        points = {number * step: values for number, values in history.folded(kind, points, step).items()}
    numbers = sorted(points)
    return HistoryRow(
        name=name,
        span_s=level.span_s * step,
        at=[number * level.span_s for number in numbers],
        values={field.name: [points[number][nth] for number in numbers] for nth, field in enumerate(FIELDS[kind])},
    )
