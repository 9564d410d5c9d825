"""`airflow remote bundles …`: which Dag bundles are published for workers, by whom, and when."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from airflow_remote_provider.cli.central import central
from airflow_remote_provider.cli.printing import output, show_facts, show_row, show_rows, show_signed, show_table, watch, watched
from airflow_remote_provider.cli.words import action, group, option

if TYPE_CHECKING:
    import argparse

COLUMNS = (
    "name",
    "version",
    "tree",
    "files",
    "bytes",
    "scanned_at",
    "is_publishing",
    "publisher",
    "workers",
    "waiting",
    "trouble",
)
EDITIONS = ("version", "tree", "files", "bytes", "published_at", "scanned_at", "wanted_at", "workers", "jobs", "trouble")
HOLDERS = ("worker", "tree", "is_newest")
DIGITS = 12
"""Of a digest, in tables: as in a task's log."""


def commands() -> Any:
    name = option("name", help="the bundle's name")
    return group(
        "bundles",
        "Dag bundles that are published for workers",
        action("list", "list all bundles: who publishes each, and how fresh it is", list_bundles, output(), watch()),
        action("show", "show one bundle, with its history and the workers that hold it", show_bundle, name, output(), watch()),
        action("publish", "ask the process that publishes a bundle to publish it now", ask_to_publish, name),
    )


@watched
def list_bundles(args: argparse.Namespace) -> None:
    rows = central(args).list_bundles()
    if args.output != "table":
        show_rows(rows, args, COLUMNS)
    else:
        show_table([_short(asdict(row)) for row in rows], COLUMNS)


@watched
def show_bundle(args: argparse.Namespace) -> None:
    found = central(args).show_bundle(args.name)
    if args.output != "table":
        show_row(found, args)
        return
    show_facts(asdict(found.about), args)
    for title, columns, rows in (("history", EDITIONS, found.editions), ("workers that hold it", HOLDERS, found.holders)):
        if rows:
            print(f"\n{title}:")
            show_table([_short(asdict(row)) for row in rows], columns)
    show_signed(found.statements)


def ask_to_publish(args: argparse.Namespace) -> None:
    bundle = central(args).ask_to_publish(args.name)
    if bundle.is_publishing:
        print(f"{args.name}: {bundle.publisher or 'the process that publishes it'} publishes it at its next turn, within seconds")
    else:
        print(
            f"{args.name}: no process publishes it now; run `airflow remote publish {args.name} --watch` where its files are, "
            "beside the Dag processor"
        )


def _short(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row for a table, with the first digits of its tree. JSON and YAML have them all."""
    return {**row, "tree": row["tree"][:DIGITS] if row["tree"] else None, "version": row.get("version", "")[:DIGITS]}
