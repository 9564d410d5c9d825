"""What `roll` of runtimes and of releases have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from airflow_remote_provider.cli.words import labels_in, option, reason

if TYPE_CHECKING:
    import argparse

T = TypeVar("T")

DIGITS = 12
"""Of a digest, in tables: as in a task's log."""


def roll_options() -> tuple[Any, ...]:
    return (
        option("--percent", type=int, default=None, help="share of the workers, 0 to 100; default: 100"),
        option("--label", default="", metavar="KEY=VALUE,…", help="only workers with these labels; default: all workers"),
        option("--to", type=int, default=None, metavar="SERIAL", help="roll the trees of this serial out again"),
        option("--halt", action="store_true", help="halt: only workers that have the rolled serial ready keep it"),
        option("--resume", action="store_true", help="resume a halted rollout"),
        reason(),
    )


def roll_with(
    args: argparse.Namespace,
    begin: Callable[[int, Mapping[str, str], int | None], T],
    *,
    halt: Callable[[], T],
    resume: Callable[[], T],
) -> T:
    """Do what the options say; *begin* gets percent, labels and the serial to repeat."""
    rolls = args.percent is not None or args.label or args.to is not None
    if sum((bool(rolls), args.halt, args.resume)) > 1:
        raise SystemExit("name only one of --halt, --resume, and the options of a rollout (--percent, --label, --to)")
    if args.halt:
        return halt()
    if args.resume:
        return resume()
    return begin(100 if args.percent is None else args.percent, labels_in(args.label), args.to)


def short(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row for a table, with the first digits of its tree. JSON and YAML have them all."""
    return {**row, "tree": row["tree"][:DIGITS]} if "tree" in row else row
