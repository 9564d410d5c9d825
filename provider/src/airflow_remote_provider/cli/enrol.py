"""`airflow remote enrol …`: enrolment tokens, which workers join with."""

from __future__ import annotations

import shlex
import sys
from dataclasses import asdict
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow_remote_provider.cli.central import central
from airflow_remote_provider.cli.printing import output, show_facts, show_rows, watch, watched
from airflow_remote_provider.cli.words import action, group, labels_in, names_in, option

if TYPE_CHECKING:
    import argparse

COLUMNS = ("id", "name_pattern", "queues", "bundles", "networks", "uses_left", "created_by", "expires_at", "revoked_at")


def commands() -> Any:
    return group(
        "enrol",
        "enrolment tokens, which workers join with",
        action(
            "create",
            "create a token; it is shown only once",
            create_token,
            option("--queues", default="", help="queues that the worker may serve, separated by commas"),
            option("--name-pattern", default=None, help="names that workers may join under, such as 'edge-*'; default: any"),
            option(
                "--replaces",
                metavar="NAME",
                default=None,
                help="for the rebuilt machine of this worker: one join under its name, with its team, labels, bundles and "
                "queues; the old credential ends",
            ),
            option("--team", default=None, help="team whose tasks the worker runs (multi-team only)"),
            option("--labels", default="", help="labels that the worker gets, such as site=kiel,gpu=yes"),
            option(
                "--bundles",
                default=None,
                help="Dag bundles whose jobs the worker may be offered, such as 'plant-*', separated by commas; default: any",
            ),
            option(
                "--networks",
                default="",
                help="networks that it may be used from, such as 10.1.0.0/16, separated by commas; default: any",
            ),
            option("--uses", type=int, default=1, help="how many workers may join with it"),
            option("--expires-minutes", type=float, default=60.0, help="minutes until it expires"),
            output(),
        ),
        action("list", "list all tokens, without their secrets", list_tokens, output(), watch()),
        action(
            "revoke", "revoke a token; workers that have joined with it stay", revoke_token, option("id", help="the token's id")
        ),
    )


def create_token(args: argparse.Namespace) -> None:
    from airflow_remote_provider.ledger.credentials import LONGEST_LIFE, NewToken

    queues = names_in(args.queues)
    if args.replaces is not None:
        _check_replacement(args)
    elif not queues:
        raise SystemExit("--queues names no queue; give at least one, such as --queues default")
    if args.uses < 1:
        raise SystemExit("--uses must be 1 or more")
    most = LONGEST_LIFE.total_seconds() / 60
    if not 0 < args.expires_minutes <= most:
        raise SystemExit(f"--expires-minutes must be more than 0 and at most {most:g} (a year)")
    new = NewToken(
        queues=queues,
        name_pattern=args.name_pattern or "*",
        team=args.team,
        labels=labels_in(args.labels),
        bundles=names_in("*" if args.bundles is None else args.bundles),
        networks=names_in(args.networks),
        uses=args.uses,
        lifetime=timedelta(minutes=args.expires_minutes),
        replaces=args.replaces,
    )
    token, row = central(args).create_token(new)
    if args.output != "table":
        show_facts({"token": token, **asdict(row)}, args)
        return
    print(token)
    # Without the token: every user of a machine can list the arguments of its processes, and a shell keeps them in its history.
    name = "" if args.replaces is None else f" --name {shlex.quote(row.name_pattern)}"
    command = f"\nOn the machine that joins (it asks for the token):\n    airflow-remote-worker join {_address(args)}{name}"
    print(command, file=sys.stderr)


def _check_replacement(args: argparse.Namespace) -> None:
    """Refuse options whose values come from the worker that is replaced."""
    own = {"--name-pattern": args.name_pattern, "--team": args.team, "--labels": args.labels, "--bundles": args.bundles}
    for flag in (flag for flag, value in own.items() if value):
        raise SystemExit(f"{flag}: --replaces {args.replaces} takes it from that worker; omit it, and change it after the join")
    if args.uses != 1:
        raise SystemExit(f"--uses: one machine replaces {args.replaces}; omit it")


def _address(args: argparse.Namespace) -> str:
    """Return Airflow's address as this command knows it. Workers may need another one."""
    from airflow_remote_provider.cli.server import named_server
    from airflow_remote_provider.compat import base_url

    server = named_server(args)
    return (server.url if server else base_url()) or "<this Airflow's address>"


@watched
def list_tokens(args: argparse.Namespace) -> None:
    show_rows(central(args).list_tokens(), args, COLUMNS)


def revoke_token(args: argparse.Namespace) -> None:
    central(args).revoke_token(args.id)
    print(f"revoked {args.id}")
