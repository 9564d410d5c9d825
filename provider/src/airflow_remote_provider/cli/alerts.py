"""`airflow remote alerts …`: incidents, and who takes care of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_remote_provider.cli.central import central
from airflow_remote_provider.cli.printing import output, show_row, show_rows, watch, watched
from airflow_remote_provider.cli.words import action, group, option

if TYPE_CHECKING:
    import argparse

COLUMNS = ("id", "begun_at", "kind", "subject", "recovered_at", "acknowledged_by", "text")


def commands() -> Any:
    incident = option("incident", help="the incident's id")
    return group(
        "alerts",
        "incidents: what needs an operator, and who takes care of it",
        action(
            "list",
            "list the open incidents",
            list_incidents,
            option("--all", action="store_true", help="list recovered incidents, too"),
            output(),
            watch(),
        ),
        action("show", "show one incident", show, incident, output()),
        action("acknowledge", "show others that you take care of an incident", acknowledge, incident),
    )


@watched
def list_incidents(args: argparse.Namespace) -> None:
    show_rows(central(args).list_incidents(recovered=args.all), args, COLUMNS)


def show(args: argparse.Namespace) -> None:
    show_row(central(args).show_incident(args.incident), args)


def acknowledge(args: argparse.Namespace) -> None:
    found = central(args).acknowledge_incident(args.incident)
    print(f"{found.kind} of {found.subject}: acknowledged by {found.acknowledged_by}")
