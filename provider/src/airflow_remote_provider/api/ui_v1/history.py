"""Routes of the history of queues, of the fleet and of each worker."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Annotated

from fastapi import Query
from pydantic import StringConstraints

from airflow_remote_provider.api.ui_v1.caller import CallerDep
from airflow_remote_provider.api.ui_v1.listed import Listed
from airflow_remote_provider.api.ui_v1.routes import Routes
from airflow_remote_provider.ledger.history import SeriesKind
from airflow_remote_provider.ledger.queues import LONGEST_NAME
from airflow_remote_provider.ledger.views import history as view
from airflow_remote_provider.ledger.views.history import LONGEST, MOST_NAMES, MOST_POINTS, HistoryRow

router = Routes("history")

Name = Annotated[str, StringConstraints(min_length=1, max_length=LONGEST_NAME)]


@router.get("/history/{kind}", summary="Show the history")
async def list_history(
    caller: CallerDep,
    kind: SeriesKind,
    name: Annotated[
        Sequence[Name],
        Query(max_length=MOST_NAMES, description="filter by queue or worker; for workers at least one name is needed"),
    ] = (),
    last_s: Annotated[float, Query(ge=60, le=LONGEST.total_seconds(), description="how far back, in seconds")] = 86_400,
    most_points: Annotated[int, Query(ge=2, le=MOST_POINTS, description="points per series; more are aggregated")] = 288,
) -> Listed[HistoryRow]:
    """The last day by minutes (workers: by quarters of an hour), two weeks by quarters of an hour, a year by two hours."""
    rows = await caller.read(view.list_history, kind, last=timedelta(seconds=last_s), most_points=most_points, names=tuple(name))
    return Listed(items=rows, next=None)
