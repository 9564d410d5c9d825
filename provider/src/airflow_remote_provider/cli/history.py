"""Measurements over time, of the fleet, of workers and of queues."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from airflow_remote_provider.cli.central import central
from airflow_remote_provider.cli.printing import output, show_rows, show_table, watch
from airflow_remote_provider.cli.words import action, option, span_in

if TYPE_CHECKING:
    import argparse

    from airflow_remote_provider.ledger.history import SeriesKind


def history(whose: str, text: str, show: Callable[[argparse.Namespace], None]) -> Any:
    """Return the command that shows the history of *whose*."""
    return action(
        "history",
        f"show measurements over time: {text}",
        show,
        option("names", nargs="*", metavar="NAME", help=f"names of {whose}"),
        option("--last", default="1h", help="how far back, such as 30m, 4h, 14d, 365d; longer times have fewer points"),
        output(),
        watch(),
    )


def show_series(args: argparse.Namespace, kind: SeriesKind) -> None:
    """Print one point a line; as JSON or YAML, the series as the API returns them."""
    rows = central(args).list_history(kind, args.names, last=_last(args))
    if args.output != "table":
        show_rows(rows, args, ())
        return
    names = list(rows[0].values) if rows else []
    points = [
        {"name": row.name, "at": datetime.fromtimestamp(at, timezone.utc), **{name: row.values[name][nth] for name in names}}
        for row in rows
        for nth, at in enumerate(row.at)
    ]
    show_table(points, ("name", "at", *names))


def _last(args: argparse.Namespace) -> Any:
    from datetime import timedelta

    from airflow_remote_provider.ledger.views.history import LONGEST

    last = span_in("--last", args.last)
    if not timedelta(minutes=1) <= last <= LONGEST:
        raise SystemExit(f"--last {args.last}: between 1m and {LONGEST.days}d")
    return last
